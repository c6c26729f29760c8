"""Doubles: one event that came by two log partitions is counted once.

Within a partition the deduplication index decides before anything is stored. Across partitions
nobody can: the number of partitions was changed, or a producer chose another key. So both
became facts, and the later one is reversed by a correction: the one received first stays, then
the lower partition, then the lower offset. Every pass decides the same.
"""

from __future__ import annotations

from typing import Any

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
_FOLLOWER = "doubles"
_OFFSETS_PER_STEP = 200_000
_EVENTS_PER_STEP = 200
_EXAMPLES = 10
_PASSES_MAX = 1_000


class Doubles:
    """Finds events that count more than once, and reverses all but the first."""

    def __init__(self, pool: ConnectionPool, store: ClickHouse, clock: Clock) -> None:
        self._pool = pool
        self._store = store
        self._clock = clock
        self._positions = Positions(pool)
        self._corrections = Corrections(pool, store)

    def step(self) -> bool:
        """Look at facts that are new since the last step; False when there are no more."""
        head = self._corrections.settled_head()
        stored = self._positions.load("sink")
        landed = {p: stored[p].offset for p in stored if p != CORRECTIONS}
        if head is None or len(landed) < 2:
            return False
        seen = self._positions.load(_FOLLOWER)
        starts = {p: seen[p].offset if p in seen else 0 for p in landed}
        ends = {p: min(end, starts[p] + _OFFSETS_PER_STEP) for p, end in landed.items()}
        if all(starts[p] >= end for p, end in ends.items()):
            return False
        found = self._find(
            "event_id IN (SELECT event_id FROM tallystick.facts WHERE correction_id = '' AND "
            f"({within('log_offset', starts, ends)}))"
        )
        moved = starts if len(found) == _EVENTS_PER_STEP else ends
        self._reverse(found, head, moved)
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
            found += [event for event in page if event not in found]
            if not is_repairing or not page:
                break
            reversed_rows += self._reverse(page, head, {})
        examples = [f"{tenant}/{event_id}" for tenant, event_id in found[:_EXAMPLES]]
        return {
            "agrees": not found,
            "doubles": len(found),
            "has_more": not is_repairing and len(found) == _EVENTS_PER_STEP,
            "examples": examples,
            "reversed_rows": reversed_rows,
            "lagging": self._corrections.settled_head() is None,
        }

    def _find(self, condition: str) -> list[tuple[str, str]]:
        sql = _SQL["query_doubles"].format(condition=condition, limit=_EVENTS_PER_STEP)
        rows = self._store.query_rows(sql)
        return [(row["tenant_id"], row["event_id"]) for row in rows]

    def _reverse(self, events: list[tuple[str, str]], head: int, moved: dict[int, int]) -> int:
        """Append what reverses these events, and move behind the facts that were searched."""
        rows = reversals(self._current(events)) if events else []
        now = self._clock.now()
        try:
            with transaction(self._pool) as connection:
                if moved:
                    self._positions.store(connection, _FOLLOWER, moved, now)
                self._corrections.append(connection, rows, head, now)
        except Raced:
            return 0
        return len(rows)

    def _current(self, events: list[tuple[str, str]]) -> list[Current]:
        current = self._corrections.query_current(
            "event_id IN {ids:Array(String)}", {"ids": sorted({one[1] for one in events})}
        )
        wanted = set(events)
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
