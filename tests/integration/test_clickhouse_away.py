"""ClickHouse goes away under a query: no log and no answer says what was asked, or where it is."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tallystick.errors import StoreUnavailable
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.child import spawn


@pytest.mark.slow
def test_an_outage_tells_no_value_of_a_query(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    process = spawn(
        [sys.executable, "-m", "tests.chdb_server", str(tmp_path), "key"],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        store = ClickHouse(f"http://tallystick:key@127.0.0.1:{port}/")
        asked = ("SELECT {user:String} AS found", {"user": "alice"})
        assert store.query_rows(*asked) == [{"found": "alice"}]
        process.kill()
        process.wait(30)
        with pytest.raises(StoreUnavailable) as away:
            store.query_rows(*asked)
        store.close()
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert away.value.message == "ClickHouse cannot be reached"
    assert not caplog.records, caplog.text
