"""Facts and rollups in ClickHouse: appends that can be repeated after a crash.

A fact is appended once because recovery reads back which offsets already landed. A rollup
row carries the last offset it counts, and an INSERT into a rollup is one part (it lands
whole or not at all), so the greatest offset present says where to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.sql import load_statements

if TYPE_CHECKING:
    import pyarrow as pa  # only who writes facts loads it

_SQL = load_statements("tallystick.analytics", "store.sql")

ROLLUP_KEYS = (
    "team",
    "product",
    "feature",
    "project_id",
    "workflow",
    "agent",
    "customer_tier",
    "environment",
    "provider",
    "model",
    "tool",
    "operation",
    "error_code",
)
"""Dimensions of the minute rollup besides the bucket and the tenant."""

LINE_KEYS = ("bucket_at", *ROLLUP_KEYS, "user_id")
"""What tells two lines of a run's charge apart."""

DERIVED_TABLES = ("facts", "deliveries", "rollup_minute", "runs", "charges")

_ROLLUPS = {
    "rollup_minute": (
        "fold_facts",
        "toStartOfMinute(occurred_at) AS bucket_at, tenant_id, " + ", ".join(ROLLUP_KEYS),
        "bucket_at, tenant_id, " + ", ".join(ROLLUP_KEYS),
    ),
    "runs": ("fold_runs", "", ""),
}
_OFFSETS_PER_FOLD = 100_000
RunKey = tuple[str, str]
"""(tenant_id, charge_key)."""


def fold_facts_sql(keys: str, group_keys: str, condition: str) -> str:
    """The SELECT that folds facts into rollup rows, for any keys and condition."""
    select, _, _ = _SQL["fold_facts"].rpartition("GROUP BY {keys}")
    return select.format(keys=keys, condition=condition) + f"GROUP BY {group_keys}"


class FactStore:
    """Reads and appends facts, deliveries, rollups and charge lines."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    def query_landed_until(self, partition: int) -> int:
        """The offset after the last one that landed; 0 when none did."""
        rows = self._store.query_rows(_SQL["query_landed_until"], {"partition": partition})
        return int(rows[0]["landed_until"]) if rows else 0

    def query_landed_offsets(self, table: str, partition: int, start: int, end: int) -> set[int]:
        """Offsets in [start, end) that `table` (facts or deliveries) already holds."""
        rows = self._store.query_rows(
            _SQL["query_landed"].format(table=table),
            {"partition": partition, "start": start, "end": end},
        )
        return {row["log_offset"] for row in rows}

    def append(self, table: str, rows: pa.Table) -> None:
        """Append rows; on disk when this returns."""
        self._store.insert_arrow(table, rows)

    def fold_until(self, offset_end: int, watermarks: dict[str, int]) -> None:
        """Bring every rollup up to `offset_end`, from `watermarks` on (updated in place)."""
        for table, (statement, keys, group_keys) in _ROLLUPS.items():
            start = watermarks.get(table)
            if start is None:
                start = self._query_watermark(table)
            while start < offset_end:
                end = min(start + _OFFSETS_PER_FOLD, offset_end)
                condition = f"log_offset >= {start} AND log_offset < {end}"
                if statement == "fold_facts":
                    select = fold_facts_sql(keys, group_keys, condition)
                else:
                    select = _SQL[statement].format(condition=condition)
                self._insert_select(table, select)
                start = end
            watermarks[table] = start

    def _insert_select(self, table: str, select: str) -> None:
        columns = [
            row["name"]
            for row in self._store.query_rows(
                "SELECT name FROM system.columns WHERE database = 'tallystick' "
                "AND table = {table:String} ORDER BY position",
                {"table": table},
            )
        ]
        self._store.command(
            f"INSERT INTO tallystick.{table} ({', '.join(columns)}) "
            f"SELECT {', '.join(columns)} FROM ({select}) "
            "SETTINGS max_threads = 1, max_insert_threads = 1"
        )

    def _query_watermark(self, table: str) -> int:
        row = self._store.query_rows(_SQL["query_watermark"].format(table=table))[0]
        return int(row["last_offset"]) + 1 if row["parts"] else 0

    def query_touched_runs(self, start: int, end: int) -> list[tuple[str, str, bool]]:
        """(tenant_id, charge_key, has_ended) of what facts in [start, end) touched."""
        rows = self._store.query_rows(
            _SQL["query_touched_runs"].format(), {"start": start, "end": end}
        )
        return [(row["tenant_id"], row["charge_key"], bool(row["has_ended"])) for row in rows]

    def query_run_lines(self, runs: Sequence[RunKey]) -> list[dict[str, Any]]:
        """Rated credits of runs, by attempt and line key."""
        return self._store.query_rows(_SQL["query_run_lines"].format(), {"runs": list(runs)})

    def query_charged_lines(self, runs: Sequence[RunKey]) -> list[dict[str, Any]]:
        """Posted credits of runs, by line key."""
        return self._store.query_rows(_SQL["query_charged_lines"].format(), {"runs": list(runs)})

    def query_counts(self) -> dict[str, int]:
        """Facts, duplicates and conflicts counted so far."""
        return dict(self._store.query_rows(_SQL["query_counts"])[0])

    def wipe(self) -> None:
        """Delete everything derived; the log still has it all."""
        for table in DERIVED_TABLES:
            self._store.command(f"TRUNCATE TABLE tallystick.{table}")
