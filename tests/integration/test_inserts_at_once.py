"""No insert waits in a buffer of ClickHouse: what is read back after one is all that will land."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.plumbing.clickhouse import ClickHouse
from tests.chdb_server import serving

_VALUE = "SELECT value FROM system.settings WHERE name = 'async_insert'"
_MONTHS = "SELECT value FROM system.settings WHERE name = 'max_partitions_per_insert_block'"


def test_embedded(clickhouse: ClickHouse) -> None:
    assert clickhouse.query_rows(_VALUE) == [{"value": "0"}]
    assert clickhouse.query_rows(_MONTHS) == [{"value": "0"}]


@pytest.mark.slow
def test_over_http(tmp_path: Path) -> None:
    """The request says it, for a server; the endpoint of chDB says it by itself."""
    with serving(tmp_path) as (_, url):
        store = ClickHouse(url)
        assert store.query_rows(_VALUE) == [{"value": "0"}]
        assert store.query_rows(_MONTHS) == [{"value": "0"}]
        assert store._client.get_client_setting("async_insert") == "0"
        store.close()
