"""ClickHouse goes away under a query: no log and no answer says what was asked, or where it is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tallystick.errors import StoreUnavailable
from tallystick.plumbing.clickhouse import ClickHouse
from tests.chdb_server import serving


@pytest.mark.slow
def test_an_outage_tells_no_value_of_a_query(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with serving(tmp_path) as (process, url):
        store = ClickHouse(url)
        asked = ("SELECT {user:String} AS found", {"user": "alice"})
        assert store.query_rows(*asked) == [{"found": "alice"}]
        process.kill()
        process.wait(30)
        with pytest.raises(StoreUnavailable) as away:
            store.query_rows(*asked)
        store.close()
    assert away.value.message == "ClickHouse cannot be reached"
    assert not caplog.records, caplog.text
