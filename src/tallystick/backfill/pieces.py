"""The work of a backfill, piece by piece: each is decided, appended and stored as one.

A piece is the next events in the order of the facts. It is decided from what they count as
now, and its corrections, its report and the cursor behind it are one transaction: after a
crash it either stands or is decided again, from the same state and so to the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from psycopg_pool import ConnectionPool

from tallystick.analytics.corrections import (
    Corrections,
    EventKey,
    after,
    until,
)
from tallystick.analytics.store import within
from tallystick.backfill.model import EVENTS_PER_PIECE_MAX, Backfill, Piece, Status
from tallystick.backfill.rules import (
    Change,
    inverses,
    rate_again,
    report_lines,
    report_runs,
    rows_of,
)
from tallystick.backfill.store import BackfillStore
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.errors import Raced, TallystickError
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import CORRECTIONS, Positions
from tallystick.plumbing.postgres import transaction
from tallystick.rating import RATED_TYPES, Rater

Heads = Callable[[], Mapping[int, int]]
"""Log partition -> the offset that its next event will get, for every usage partition."""

_TYPES = ", ".join(f"'{kind}'" for kind in sorted(RATED_TYPES))


class Pieces:
    """Advances backfills one piece at a time."""

    def __init__(
        self,
        pool: ConnectionPool,
        store: ClickHouse,
        catalog: Catalog,
        clock: Clock,
        heads: Heads,
        events_per_piece_max: int = EVENTS_PER_PIECE_MAX,
    ) -> None:
        self._pool = pool
        self._backfills = BackfillStore(pool)
        self._corrections = Corrections(pool, store)
        self._positions = Positions(pool)
        self._catalog = catalog
        self._clock = clock
        self._heads = heads
        self._events_max = events_per_piece_max
        self._rater: tuple[str, Rater] | None = None

    def next_open(self) -> Backfill | None:
        """The oldest backfill that is to be worked on."""
        return self._backfills.load_open()

    def advance(self, backfill: Backfill) -> int | None:
        """Do the next piece; return events examined, None while the facts lag behind."""
        try:
            return self._advance(backfill)
        except Raced:
            return 0
        except TallystickError as error:
            if error.retryable:
                raise
            with transaction(self._pool) as connection:
                now = self._clock.now()
                failure = error.message[:200]
                self._backfills.move(connection, backfill.backfill_id, Status.FAILED, now, failure)
            return 0

    def _advance(self, backfill: Backfill) -> int | None:
        if backfill.status == Status.PLANNED:
            self._backfills.begin(backfill.backfill_id, self._heads(), self._clock.now())
            return 0
        head = self._corrections.settled_head()
        if head is None or not self._positions.has_reached("sink", backfill.ends):
            return None
        piece = self._revert_piece(backfill) if backfill.reverts else self._rating_piece(backfill)
        expected = self._expected(backfill)
        now = self._clock.now()
        with transaction(self._pool) as connection:
            self._backfills.finish_piece(connection, backfill, piece, expected, now)
            if not backfill.is_dry_run:
                self._corrections.append(connection, piece.rows, head, now)
        return piece.examined

    def _expected(self, backfill: Backfill) -> int:
        if backfill.expected is not None:
            return backfill.expected
        if backfill.reverts:
            return self._backfills.load(backfill.reverts).corrected
        chosen, parameters = self._chosen(backfill)
        arrived = f"({within('log_offset', {}, backfill.ends)})"
        return self._corrections.count(f"{chosen} AND {arrived}", parameters)

    def _rating_piece(self, backfill: Backfill) -> Piece:
        limit = min(self._events_max, backfill.events_per_second_max)
        chosen, parameters = self._chosen(backfill)
        start = EventKey(*backfill.cursor) if backfill.cursor else None
        behind, more = after(start, "start")
        parameters |= more
        arrived = f"({within('log_offset', {}, backfill.ends)})"
        keys = self._corrections.query_keys(
            f"{chosen} AND {behind} AND {arrived}", parameters, limit
        )
        if not keys:
            return Piece([], [], [], 0, 0, backfill.cursor, True)
        in_front, more = until(keys[-1], "end")
        current = self._corrections.query_current(
            f"{chosen} AND {behind} AND {in_front}", parameters | more
        )
        wanted = set(keys)  # others came after the backfill was made
        meant = [one for one in current if one.key in wanted]
        changes = rate_again(meant, self._rater_of(backfill), backfill.created_at)
        return _piece(backfill, changes, len(keys), 0, list(keys[-1]), len(keys) < limit)

    def _revert_piece(self, backfill: Backfill) -> Piece:
        limit = 2 * min(self._events_max, backfill.events_per_second_max)  # pairs of rows
        start = backfill.cursor[0] if backfill.cursor else 0
        since = self._corrections.corrected_from()
        found = self._corrections.query_rows(backfill.reverts, start, limit, since)
        if not found:
            return Piece([], [], [], 0, 0, backfill.cursor, True)
        last = found[-1][0]
        rows = (
            f"SELECT {{columns}} FROM tallystick.facts WHERE log_partition = {CORRECTIONS} "
            "AND correction_id = {correction:String} "
            "AND log_offset >= {start:UInt64} AND log_offset <= {last:UInt64}"
        )
        current = self._corrections.query_current(
            f"(tenant_id, charge_key) IN ({rows.replace('{columns}', 'tenant_id, charge_key')}) "
            f"AND event_id IN ({rows.replace('{columns}', 'event_id')})",
            {"correction": backfill.reverts, "start": start, "last": last},
        )
        changes, skipped = inverses([row for _, row in found], current)
        examined = len(found) // 2
        return _piece(backfill, changes, examined, skipped, [last + 1], len(found) < limit)

    def _chosen(self, backfill: Backfill) -> tuple[str, dict[str, Any]]:
        """The condition that an event is meant: one that expires meanwhile is left out."""
        from_at = max(backfill.from_at, self._corrections.corrected_from())
        conditions = [
            "f.occurred_at >= fromUnixTimestamp64Micro({from_at:Int64}, 'UTC')",
            "f.occurred_at < fromUnixTimestamp64Micro({to_at:Int64}, 'UTC')",
            f"event_type IN ({_TYPES})",
        ]
        parameters: dict[str, Any] = {"from_at": from_at, "to_at": backfill.to_at}
        if backfill.tenant_ids:
            conditions.append("tenant_id IN {tenants:Array(String)}")
            parameters["tenants"] = list(backfill.tenant_ids)
        if backfill.models:
            conditions.append("model IN {models:Array(String)}")
            parameters["models"] = list(backfill.models)
        return " AND ".join(conditions), parameters

    def _rater_of(self, backfill: Backfill) -> Rater:
        if self._rater is None or self._rater[0] != backfill.backfill_id:
            version = backfill.rate_card_version
            rater = (
                self._catalog.make_rater(version) if version else self._catalog.refresh_rater(None)
            )
            self._rater = (backfill.backfill_id, rater)
        return self._rater[1]


def _piece(
    backfill: Backfill,
    changes: list[Change],
    examined: int,
    skipped: int,
    cursor: list[Any],
    is_last: bool,
) -> Piece:
    """A backfill ends by a piece without corrections: then all of them are facts."""
    rows = rows_of(changes, backfill.backfill_id)
    return Piece(
        rows,
        report_lines(changes),
        report_runs(changes),
        examined,
        skipped,
        cursor,
        is_last and (backfill.is_dry_run or not rows),
    )
