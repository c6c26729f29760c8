"""The horizon of the facts: from when on they are kept, said where all who read them see it.

It stands in ClickHouse, beside the charge lines whose word is final before it. So a ClickHouse
that was lost knows none, and everything is made anew from the log. Readers stop at it
(`tallystick.kept_facts`) an hour before the months of before it are dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tallystick.analytics.store import ONE_PART, Offsets, RunKey, as_lines, within
from tallystick.clock import format_time
from tallystick.errors import InvalidInput
from tallystick.plumbing.clickhouse import ClickHouse, for_cluster
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.analytics", "horizon.sql")


class Announced(NamedTuple):
    """From when on facts are kept, and when that was said (micros); zeros: for ever."""

    horizon_at: int
    announced_at: int


class KeptFacts:
    """Says, counts and drops what expires."""

    def __init__(self, store: ClickHouse, cluster: str = "") -> None:
        self._store = store
        self._cluster = cluster

    def query_horizon(self) -> Announced:
        """From when on facts are kept."""
        (row,) = self._store.query_rows(_SQL["query_horizon"])
        return Announced(int(row["horizon_at"]), int(row["announced_at"]))

    def query_expired(self) -> Offsets:
        """Rows of facts that lie before the horizon, by log partition."""
        rows = self._store.query_rows(_SQL["query_expired"])
        return {int(row["log_partition"]): int(row["expired"]) for row in rows}

    def query_missing(self, starts: Offsets, ends: Offsets) -> dict[int, int]:
        """How many offsets of [start, end) are not accounted for, by log partition."""
        condition = within("log_offset", starts, ends) or "false"
        sql = _SQL["query_accounted"].format(condition=condition)
        rows = self._store.query_rows(sql)
        accounted = {int(row["log_partition"]): int(row["accounted"]) for row in rows}
        missing = {
            partition: end - starts.get(partition, 0) - accounted.get(partition, 0)
            for partition, end in ends.items()
        }
        return {partition: count for partition, count in missing.items() if count > 0}

    def announce(self, horizon_at: int, now: int) -> None:
        """Say that facts are kept from `horizon_at` on; again, it says the same."""
        sql = _SQL["announce"].format(one_part=ONE_PART)
        self._store.command(sql, {"horizon": horizon_at, "now": now})

    def query_runs_before(self, runs: Sequence[RunKey], horizon_at: int) -> list[RunKey]:
        """Which of some runs have facts of before a moment."""
        if not runs:
            return []
        arguments = {"runs": as_lines(runs), "horizon": horizon_at}
        rows = self._store.query_rows(_SQL["query_runs_before"].format(), arguments)
        return [(row["tenant_id"], row["charge_key"]) for row in rows]

    def query_months(self, horizon_at: int) -> list[str]:
        """Months of facts before a moment that is the beginning of one."""
        rows = self._store.query_rows(_SQL["query_months"], {"horizon": horizon_at})
        return [row["partition_id"] for row in rows]

    def drop(self, month: str) -> None:
        """Delete the facts of a month; nothing happens when there are none."""
        self._store.command(for_cluster(_SQL["drop_month"].format(month=month), self._cluster))


def require_kept(store: ClickHouse, from_at: int, otherwise: str) -> None:
    """Raise InvalidInput when facts from a moment on are asked for that have expired."""
    horizon_at = KeptFacts(store).query_horizon().horizon_at
    if horizon_at and from_at < horizon_at:
        raise InvalidInput(
            f"events of before {format_time(horizon_at)} have expired: ask from then on, "
            f"or {otherwise}",
            code="facts_expired",
            field="from",
        )
