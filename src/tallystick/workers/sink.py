"""The sink: from the usage log to priced facts.

One step reads a chunk of each partition, keeps the originals, prices them, appends facts and
deliveries, and only then moves its positions, together with the list of runs to charge. A
crash anywhere in between repeats the step: what already landed is read back and left out, so
each event becomes exactly one fact.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain, compress
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg_pool import ConnectionPool

from tallystick.analytics.facts import corrections_table, deliveries_table, facts_table
from tallystick.analytics.store import FactStore
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.events.model import EVENT_FIELDS, EventType
from tallystick.events.promotion import DEFAULTS, fill_columns
from tallystick.plumbing.log import CORRECTIONS, Chunk, Positions, Source, Verdict
from tallystick.plumbing.log.columns import complete, concat
from tallystick.plumbing.postgres import transaction
from tallystick.rating import Rater
from tallystick.workers.pending import PendingRuns

EVENTS_PER_STEP_MAX = 100_000
_STEP_SECONDS_MIN = 0.35
"""Each step makes new parts in ClickHouse; fewer, larger ones cost less to merge."""

_KIND_NAMES = {
    int(Verdict.DUPLICATE): "duplicate",
    int(Verdict.CONFLICT): "conflict",
    int(Verdict.CONTROL): "control",
}
_ENDS = ("run_completed", "run_failed")


class _Deliveries(NamedTuple):
    """Events of one step as columns, with their coordinates and verdicts."""

    size: int
    columns: dict[str, list[Any]]
    partitions: list[int]
    offsets: list[int]
    verdicts: bytes


Touched = dict[tuple[str, str], bool]
"""(tenant, charge key) -> whether its end was seen."""


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
        touched: Touched = {}
        usage = [one for one in chunks if one.partition != CORRECTIONS]
        if usage:
            self._take_in(_gather(usage), touched)
        for chunk in chunks:
            if chunk.partition == CORRECTIONS:
                self._correct(chunk, touched)
        now = self._clock.now()
        with transaction(self._pool) as connection:
            self._pending.mark(connection, touched, now)
            ends = {chunk.partition: chunk.offset_end for chunk in chunks}
            self._source.confirm(connection, list(ends))
            self._positions.store(connection, self.name, ends, now)
        self._pace()
        return True

    def _take_in(self, deliveries: _Deliveries, touched: Touched) -> None:
        columns = deliveries.columns
        rated = self._current_rater().rate_columns(columns, deliveries.size)
        table = facts_table(columns, rated, deliveries.partitions, deliveries.offsets)
        verdicts = self._judge_late(deliveries, table)
        _note_touched(table, columns["event_type"], verdicts, touched)
        facts, others = table, None
        if verdicts.count(Verdict.ORIGINAL) < len(verdicts):
            is_original = [verdict == Verdict.ORIGINAL for verdict in verdicts]
            facts = table.filter(is_original)
            others = table.filter([not original for original in is_original])
        self._append_missing("facts", facts)
        if others is not None:
            kinds = [_KIND_NAMES[verdict] for verdict in verdicts if verdict != Verdict.ORIGINAL]
            self._append_missing("deliveries", deliveries_table(others, kinds))

    def _correct(self, chunk: Chunk, touched: Touched) -> None:
        table = corrections_table(chunk.columns, [CORRECTIONS], chunk.offsets)
        _note_touched(table, ["run_completed"], bytes(len(chunk.offsets)), touched)
        self._append_missing("facts", table)

    def _append_missing(self, name: str, table: pa.Table) -> None:
        """Append rows, but those that landed before a crash."""
        offsets = table.column("log_offset")
        partitions = table.column("log_partition")
        for partition in pc.unique(partitions).to_pylist():
            until = self._known[partition].landed_until
            own = pc.equal(partitions, partition)
            begun = pc.and_(own, pc.less(offsets, until)) if until else None
            if begun is None or not pc.any(begun).as_py():
                continue
            range_ = pc.min_max(offsets.filter(own)).as_py()
            landed = self._facts.query_landed_offsets(
                name, partition, range_["min"], range_["max"] + 1
            )
            has_landed = pc.is_in(offsets, pa.array(landed, pa.uint64()))
            table = table.filter(pc.invert(pc.and_(own, has_landed)))
            offsets, partitions = table.column("log_offset"), table.column("log_partition")
        if table.num_rows:
            self._facts.append(name, table)

    def _judge_late(self, deliveries: _Deliveries, table: pa.Table) -> bytes:
        """Look up originals that are older than the deduplication index remembers.

        What counts is what landed before in the same partition, so a replay says the same.
        """
        late = [
            index
            for index in np.flatnonzero(table.column("is_late").to_numpy())
            if deliveries.verdicts[index] == Verdict.ORIGINAL
        ]
        if not late:
            return deliveries.verdicts
        names = ("tenant_id", "event_id", "content_digest", "log_partition", "log_offset")
        rows = table.select(list(names)).take(late).to_pylist()
        known: dict[tuple[int, str, str], tuple[int, str]] = {}
        for fact in self._facts.query_identities(sorted({row["event_id"] for row in rows})):
            identity = (fact["log_partition"], fact["tenant_id"], fact["event_id"])
            place = (int(fact["log_offset"]), fact["digest"])
            known[identity] = min(known.get(identity, place), place)
        verdicts = bytearray(deliveries.verdicts)
        for index, row in zip(late, rows, strict=True):
            first = known.get((row["log_partition"], row["tenant_id"], row["event_id"]))
            if first is not None and first[0] < row["log_offset"]:
                is_same = first[1] == row["content_digest"].hex().upper()
                verdicts[index] = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
        return bytes(verdicts)

    def _current_rater(self) -> Rater:
        """Prices as of now: every version recorded before the events at hand were received."""
        self._rater = self._catalog.refresh_rater(self._rater)
        return self._rater

    def _pace(self) -> None:
        rest = self._stepped_at + _STEP_SECONDS_MIN - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        self._stepped_at = time.monotonic()


def _gather(chunks: Sequence[Chunk]) -> _Deliveries:
    counts = [len(chunk.offsets) for chunk in chunks]
    completed = [
        (count, complete(fill_columns(chunk.columns, count), DEFAULTS))
        for count, chunk in zip(counts, chunks, strict=True)
    ]
    return _Deliveries(
        size=sum(counts),
        columns=dict(zip(EVENT_FIELDS, concat(completed), strict=True)),
        partitions=_join(
            [(count, [one.partition]) for count, one in zip(counts, chunks, strict=True)]
        ),
        offsets=list(chain.from_iterable(chunk.offsets for chunk in chunks)),
        verdicts=b"".join(chunk.verdicts for chunk in chunks),
    )


def _join(parts: list[tuple[int, list[int]]]) -> list[int]:
    return concat([(count, [values]) for count, values in parts])[0]


def _note_touched(table: pa.Table, kinds: Sequence[str], verdicts: bytes, touched: Touched) -> None:
    """Remember the runs of originals, and whether an end of theirs was among them."""
    keys = list(
        zip(
            table.column("tenant_id").to_pylist(),
            table.column("charge_key").to_pylist(),
            strict=True,
        )
    )
    whole = kinds if len(kinds) == len(keys) else list(kinds) * len(keys)
    has_others = verdicts.count(Verdict.ORIGINAL) < len(verdicts)
    if has_others or EventType.IMPORT_ERROR in kinds:
        counts = [
            verdict == Verdict.ORIGINAL and kind != EventType.IMPORT_ERROR
            for verdict, kind in zip(verdicts, whole, strict=True)
        ]
        keys, whole = list(compress(keys, counts)), list(compress(whole, counts))
    for key in dict.fromkeys(keys):
        touched.setdefault(key, False)
    touched.update((key, True) for key, kind in zip(keys, whole, strict=True) if kind in _ENDS)
