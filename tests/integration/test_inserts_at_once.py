"""No insert waits in a buffer of ClickHouse: what is read back after one is all that will land."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.child import spawn

_VALUE = "SELECT value FROM system.settings WHERE name = 'async_insert'"
_MONTHS = "SELECT value FROM system.settings WHERE name = 'max_partitions_per_insert_block'"


def test_embedded(clickhouse: ClickHouse) -> None:
    assert clickhouse.query_rows(_VALUE) == [{"value": "0"}]
    assert clickhouse.query_rows(_MONTHS) == [{"value": "0"}]


@pytest.mark.slow
def test_over_http(tmp_path: Path) -> None:
    """The request says it, for a server; the endpoint of chDB says it by itself."""
    process = spawn(
        [sys.executable, "-m", "tests.chdb_server", str(tmp_path), "key"],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        store = ClickHouse(f"http://tallystick:key@127.0.0.1:{port}/")
        assert store.query_rows(_VALUE) == [{"value": "0"}]
        assert store.query_rows(_MONTHS) == [{"value": "0"}]
        assert store._client.get_client_setting("async_insert") == "0"
        store.close()
    finally:
        process.terminate()
        process.communicate(timeout=60)
