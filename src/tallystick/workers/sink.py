"""The sink: from the usage log to priced facts.

One step reads a chunk of each partition, keeps the originals, prices them, appends facts and
deliveries, and only then moves its positions, together with the list of runs to charge. A
crash anywhere in between repeats the step: what already landed is read back and left out, so
each event becomes exactly one fact.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.analytics.facts import (
    CORRECTION_FIELDS,
    columns_of,
    corrections_table,
    deliveries_table,
    facts_table,
)
from tallystick.analytics.store import FactStore
from tallystick.bounds import LATE_AFTER
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.plumbing.log import CORRECTIONS, Chunk, Positions, Source, Verdict
from tallystick.plumbing.postgres import transaction
from tallystick.rating import Rater
from tallystick.workers.pending import PendingRuns

EVENTS_PER_STEP_MAX = 100_000
_STEP_SECONDS_MIN = 0.2
"""Each step makes new parts in ClickHouse; fewer, larger ones cost less to merge."""

_DEFAULTS = [
    msgspec.to_builtins(value)
    for value in msgspec.to_builtins(
        Event(event_id="", event_type="", occurred_at=0, received_at=0, tenant_id="")
    )
]
_KIND_NAMES = {int(Verdict.DUPLICATE): "duplicate", int(Verdict.CONFLICT): "conflict"}
_OCCURRED = EVENT_FIELDS.index("occurred_at")
_RECEIVED = EVENT_FIELDS.index("received_at")
_TENANT = EVENT_FIELDS.index("tenant_id")
_EVENT_ID = EVENT_FIELDS.index("event_id")
_DIGEST = EVENT_FIELDS.index("content_digest")


class _Deliveries(NamedTuple):
    """Events of one step with their coordinates and verdicts."""

    rows: list[list[Any]]
    partitions: list[int]
    offsets: list[int]
    verdicts: bytes

    def select(self, mask: Sequence[bool]) -> _Deliveries:
        """Keep the deliveries where `mask` is true."""
        if all(mask):
            return self
        return _Deliveries(
            list(compress(self.rows, mask)),
            list(compress(self.partitions, mask)),
            list(compress(self.offsets, mask)),
            bytes(compress(self.verdicts, mask)),
        )


class _Known(NamedTuple):
    """What is known of a partition since it was taken up."""

    epoch: int
    landed_until: int
    """Facts below this offset may have landed already."""


class Sink:
    """Follows partitions of the log into the facts."""

    name = "sink"

    def __init__(
        self,
        source: Source,
        positions: Positions,
        facts: FactStore,
        catalog: Catalog,
        pool: ConnectionPool,
        clock: Clock,
    ) -> None:
        self._source = source
        self._positions = positions
        self._facts = facts
        self._catalog = catalog
        self._pool = pool
        self._clock = clock
        self._pending = PendingRuns(pool)
        self._rater: Rater | None = None
        self._stepped_at = 0.0
        self._known: dict[int, _Known] = {}

    def recover(self) -> None:
        """Read again from the stored positions, and what has landed beyond them."""
        self._source.rewind()
        self._known = {}

    def step(self) -> bool:
        """Take in the next deliveries; False when there are no more."""
        chunks = self._source.read(EVENTS_PER_STEP_MAX)
        if not chunks:
            return False
        for chunk in chunks:
            known = self._known.get(chunk.partition)
            if known is None or known.epoch != chunk.epoch:
                landed = self._facts.query_landed_until(chunk.partition)
                self._known[chunk.partition] = _Known(chunk.epoch, landed)
        touched: dict[tuple[str, str], bool] = {}
        self._take_in([one for one in chunks if one.partition != CORRECTIONS], touched)
        self._correct([one for one in chunks if one.partition == CORRECTIONS], touched)
        now = self._clock.now()
        with transaction(self._pool) as connection:
            self._pending.mark(connection, touched, now)
            ends = {chunk.partition: chunk.offset_end for chunk in chunks}
            self._positions.store(connection, self.name, ends, now)
        self._pace()
        return True

    def _take_in(self, chunks: Sequence[Chunk], touched: dict[tuple[str, str], bool]) -> None:
        deliveries = self._judge_late(_gather(chunks))
        is_original = [verdict == Verdict.ORIGINAL for verdict in deliveries.verdicts]
        originals = deliveries.select(is_original)
        if originals.rows:
            self._append_facts(originals, touched)
        others = deliveries.select([not original for original in is_original])
        if others.rows:
            self._append_deliveries(others)

    def _append_facts(self, originals: _Deliveries, touched: dict[tuple[str, str], bool]) -> None:
        columns = columns_of(originals.rows)
        rated = self._current_rater().rate_columns(columns)
        table = facts_table(columns, rated, originals.partitions, originals.offsets)
        keys = table.column("charge_key").to_pylist()
        for tenant, key, kind in zip(
            columns["tenant_id"], keys, columns["event_type"], strict=True
        ):
            if kind in _ENDS:
                touched[tenant, key] = True
            elif kind != "data.import.error":
                touched.setdefault((tenant, key), False)
        missing = self._missing("facts", originals)
        if not all(missing):
            table = table.filter(missing)
        if table.num_rows:
            self._facts.append("facts", table)

    def _append_deliveries(self, others: _Deliveries) -> None:
        others = others.select(self._missing("deliveries", others))
        if others.rows:
            kinds = [_KIND_NAMES[verdict] for verdict in others.verdicts]
            table = deliveries_table(
                columns_of(others.rows), kinds, others.partitions, others.offsets
            )
            self._facts.append("deliveries", table)

    def _correct(self, chunks: Sequence[Chunk], touched: dict[tuple[str, str], bool]) -> None:
        for chunk in chunks:
            offsets = list(chunk.offsets)
            rows = _Deliveries(chunk.rows, [CORRECTIONS] * len(offsets), offsets, chunk.verdicts)
            for row in chunk.rows:
                touched[row[_CORRECTED_TENANT], row[_CORRECTED_KEY]] = True
            rows = rows.select(self._missing("facts", rows))
            if rows.rows:
                table = corrections_table(rows.rows, rows.partitions, rows.offsets)
                self._facts.append("facts", table)

    def _missing(self, table: str, deliveries: _Deliveries) -> list[bool]:
        """Which deliveries have not landed yet."""
        landed: set[tuple[int, int]] = set()
        for partition in sorted(set(deliveries.partitions)):
            offsets = (
                [
                    offset
                    for own, offset in zip(deliveries.partitions, deliveries.offsets, strict=True)
                    if own == partition
                ]
                if self._known[partition].landed_until > 0
                else []
            )
            if offsets and offsets[0] < self._known[partition].landed_until:
                found = self._facts.query_landed_offsets(
                    table, partition, offsets[0], offsets[-1] + 1
                )
                landed.update((partition, offset) for offset in found)
        if not landed:
            return [True] * len(deliveries.offsets)
        return [
            place not in landed
            for place in zip(deliveries.partitions, deliveries.offsets, strict=True)
        ]

    def _judge_late(self, deliveries: _Deliveries) -> _Deliveries:
        """Look up originals that are older than the deduplication index remembers.

        What counts is what landed before in the same partition, so a replay says the same.
        """
        late = [
            index
            for index, row in enumerate(deliveries.rows)
            if row[_RECEIVED] - row[_OCCURRED] > LATE_AFTER
            and deliveries.verdicts[index] == Verdict.ORIGINAL
        ]
        if not late:
            return deliveries
        ids = sorted({deliveries.rows[index][_EVENT_ID] for index in late})
        known: dict[tuple[int, str, str], tuple[int, str]] = {}
        for fact in self._facts.query_identities(ids):
            identity = (fact["log_partition"], fact["tenant_id"], fact["event_id"])
            place = (int(fact["log_offset"]), fact["digest"])
            known[identity] = min(known.get(identity, place), place)
        verdicts = bytearray(deliveries.verdicts)
        for index in late:
            row = deliveries.rows[index]
            first = known.get((deliveries.partitions[index], row[_TENANT], row[_EVENT_ID]))
            if first is not None and first[0] < deliveries.offsets[index]:
                is_same = first[1] == row[_DIGEST].hex().upper()
                verdicts[index] = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
        return deliveries._replace(verdicts=bytes(verdicts))

    def _current_rater(self) -> Rater:
        """Prices as of now: every version recorded before the events at hand were received."""
        self._rater = self._catalog.refresh_rater(self._rater)
        return self._rater

    def _pace(self) -> None:
        rest = self._stepped_at + _STEP_SECONDS_MIN - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        self._stepped_at = time.monotonic()


_ENDS = ("run_completed", "run_failed")
_CORRECTED_TENANT = CORRECTION_FIELDS.index("tenant_id")
_CORRECTED_KEY = CORRECTION_FIELDS.index("charge_key")


def _gather(chunks: Sequence[Chunk]) -> _Deliveries:
    rows: list[list[Any]] = []
    partitions: list[int] = []
    offsets: list[int] = []
    for chunk in chunks:
        rows += chunk.rows
        partitions += [chunk.partition] * len(chunk.rows)
        offsets += chunk.offsets
    for row in rows:
        if len(row) < len(EVENT_FIELDS):  # written by an older version
            row.extend(_DEFAULTS[len(row) :])
    return _Deliveries(rows, partitions, offsets, b"".join(one.verdicts for one in chunks))
