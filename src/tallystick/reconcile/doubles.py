"""Doubles: one event that came by two log partitions is counted once.

Within a partition the deduplication index decides before anything is stored. Across partitions
nobody can: the number of partitions was changed, or a producer chose another key. So both
became facts, and the later one is reversed by a correction: the one received first stays, then
the lower partition, then the lower offset. Every pass decides the same.

Most doubles are of one run, and facts are sorted by run: those are found by reading the runs of
new facts. The same id in another run can be anywhere: that search reads the ids of all facts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg_pool import ConnectionPool

from tallystick.analytics.corrections import Corrections, Current, Place, Signed, content_field
from tallystick.analytics.store import within
from tallystick.clock import Clock
from tallystick.errors import Raced
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import CORRECTIONS, Positions
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.reconcile", "doubles.sql")
_IN_THEIR_RUN = "(tenant_id, charge_key, event_id)"
_ANYWHERE = "event_id"
_FOLLOWERS = {_IN_THEIR_RUN: "doubles", _ANYWHERE: "doubles-anywhere"}
_OFFSETS_PER_STEP = 200_000
_EVENTS_PER_STEP = 200
_EXAMPLES = 10
_PASSES_MAX = 1_000


class _Double(NamedTuple):
    """An event that counts more than once, and the runs in which it was found."""

    tenant_id: str
    event_id: str
    charge_keys: list[str]


class Doubles:
    """Finds events that count more than once, and reverses all but the first."""

    def __init__(self, pool: ConnectionPool, store: ClickHouse, clock: Clock) -> None:
        self._pool = pool
        self._store = store
        self._clock = clock
        self._positions = Positions(pool)
        self._corrections = Corrections(pool, store)

    def step(self) -> bool:
        """Look for new facts again in their runs; False when there are no more."""
        return self._search(_IN_THEIR_RUN)

    def step_anywhere(self) -> bool:
        """Look for new facts again in all facts; False when there are no more."""
        return self._search(_ANYWHERE)

    def _search(self, key: str) -> bool:
        head = self._corrections.settled_head()
        stored = self._positions.load("sink")
        landed = {p: stored[p].offset for p in stored if p != CORRECTIONS}
        if head is None or len(landed) < 2:
            return False
        seen = self._positions.load(_FOLLOWERS[key])
        starts = {p: seen[p].offset if p in seen else 0 for p in landed}
        ends = {p: min(end, starts[p] + _OFFSETS_PER_STEP) for p, end in landed.items()}
        if all(starts[p] >= end for p, end in ends.items()):
            return False
        found = self._find(
            f"{key} IN (SELECT {key} FROM tallystick.facts WHERE correction_id = '' AND "
            f"({within('log_offset', starts, ends)}))"
        )
        moved = starts if len(found) == _EVENTS_PER_STEP else ends
        self._reverse(found, head, _FOLLOWERS[key], moved)
        return True

    def report(self, *, is_repairing: bool = False) -> dict[str, Any]:
        """Look at every fact; with `is_repairing` reverse what counts more than once.

        `lagging`: corrections have yet to land, so nothing can be said or done now.
        """
        found: list[tuple[str, str]] = []
        reversed_rows = 0
        for _ in range(_PASSES_MAX):
            head = self._corrections.settled_head()
            if head is None:
                break
            page = self._find("1")
            events = [(one.tenant_id, one.event_id) for one in page]
            found += [event for event in events if event not in found]
            if not is_repairing or not page:
                break
            reversed_rows += self._reverse(page, head, "", {})
        examples = [f"{tenant}/{event_id}" for tenant, event_id in found[:_EXAMPLES]]
        return {
            "agrees": not found,
            "doubles": len(found),
            "has_more": not is_repairing and len(found) == _EVENTS_PER_STEP,
            "examples": examples,
            "reversed_rows": reversed_rows,
            "lagging": self._corrections.settled_head() is None,
        }

    def _find(self, condition: str) -> list[_Double]:
        sql = _SQL["query_doubles"].format(condition=condition, limit=_EVENTS_PER_STEP)
        return [_Double(**row) for row in self._store.query_rows(sql)]

    def _reverse(
        self, events: list[_Double], head: int, follower: str, moved: dict[int, int]
    ) -> int:
        """Append what reverses these events, and move behind the facts that were searched."""
        rows = reversals(self._current(events)) if events else []
        now = self._clock.now()
        try:
            with transaction(self._pool) as connection:
                if moved:
                    self._positions.store(connection, follower, moved, now)
                self._corrections.append(connection, rows, head, now)
        except Raced:
            return 0
        return len(rows)

    def _current(self, events: list[_Double]) -> list[Current]:
        runs = {(one.tenant_id, charge_key) for one in events for charge_key in one.charge_keys}
        current = self._corrections.query_current(
            "(tenant_id, charge_key) IN {runs:Array(Tuple(String, String))} "
            "AND event_id IN {ids:Array(String)}",
            {"runs": sorted(runs), "ids": sorted({one.event_id for one in events})},
        )
        wanted = {(one.tenant_id, one.event_id) for one in events}
        since = self._corrections.corrected_from()
        return [
            one
            for one in current
            if (one.key.tenant_id, one.key.event_id) in wanted and one.key.occurred_at >= since
        ]


def reversals(current: list[Current]) -> list[Signed]:
    """Rows that leave of each event the content that was received first, once."""
    by_event: dict[tuple[str, str], list[Current]] = {}
    for one in current:
        by_event.setdefault((one.key.tenant_id, one.key.event_id), []).append(one)
    rows: list[Signed] = []
    for contents in by_event.values():
        first, *later = sorted(contents, key=_order)
        rows += [
            Signed(-1, f"double:{one.last_place[0]}:{one.last_place[1]}", one.content)
            for one, times in [(first, first.times - 1), *((one, one.times) for one in later)]
            for _ in range(times)
        ]
    return rows


def _order(one: Current) -> tuple[int, Place]:
    received_at: int = content_field(one.content, "received_at")
    return received_at, one.first_place
