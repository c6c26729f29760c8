"""The Policy Vault's follower: from the usage log to what was spent, without ClickHouse.

It reads the same deliveries as the sink and rates them by the same cards, so both come to the
same nano-dollars on ways of their own. One step reads chunks, sums what counts, and stores
sums and positions in one transaction: a crash repeats a step that left nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tallystick.analytics.facts import CORRECTION_FIELDS
from tallystick.archive import table_of
from tallystick.catalog import Catalog
from tallystick.clock import HOUR, Clock
from tallystick.enforcement.vault import Counting, Seen, VaultStore, fold
from tallystick.enforcement.vault.model import FOLLOWER, SCOPE_COLUMNS, Connection, Integers
from tallystick.events.batch import identities_of
from tallystick.events.dedup import REMEMBERED_FOR
from tallystick.events.model import EVENT_FIELDS
from tallystick.plumbing.log import CORRECTIONS, Chunk, Positions, Source, Verdict
from tallystick.plumbing.postgres import transaction
from tallystick.rating import Rater
from tallystick.rating.rater import RATED_FIELDS
from tallystick.workers.intake import coded, columns_to_rate
from tallystick.workers.loop import Progress
from tallystick.workers.memory import Memory, Verdicts

EVENTS_PER_STEP_MAX = 50_000
_FORGET_EVERY = HOUR
_COUNTED = ("run_id", "attrs", *(name for name in SCOPE_COLUMNS if name in EVENT_FIELDS))
"""Fields of an event that counting looks at, besides those that rating does."""


class Rated(NamedTuple):
    """The events of a chunk: their fields, what rating said, and 1, -1 or 0 for each."""

    columns: Mapping[str, Any]
    rated: Mapping[str, Any]
    signs: Integers


class VaultFollower:
    """Follows every partition of the log into the vault."""

    name = FOLLOWER

    def __init__(
        self,
        source: Source,
        positions: Positions,
        store: VaultStore,
        catalog: Catalog,
        clock: Clock,
        *,
        memory: Memory,
        seen: Seen | None = None,
        counting: Counting | None = None,
        events_per_step: int = EVENTS_PER_STEP_MAX,
    ) -> None:
        """`seen` is needed where verdicts are not in the log, `counting` where budgets are."""
        self._source = source
        self._positions = positions
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._memory = memory
        self._seen = seen
        self._counting = counting
        self._events_per_step = events_per_step
        self._rater: Rater | None = None
        self._begun: set[int] | None = None
        self._forgot_at = clock.now()

    def recover(self) -> None:
        """Read again from the stored positions."""
        self._source.rewind()
        self._memory.close()
        self._store.forget()
        self._begun = None

    def step(self) -> Progress:
        """Count the next deliveries."""
        if self._begun is None:
            self._begun = set(self._positions.load(self.name))
        chunks = self._source.read(self._events_per_step)
        if chunks:
            self._take_in(chunks, self._begun)
        elif not self._begun <= self._positions.load(self.name).keys():
            self.recover()  # the vault was wiped: nothing comes that would tell
            return Progress.FULL
        has_settled = self._counting is not None and self._counting.settle()
        if not has_settled:
            self._forget_old()
        if sum(len(chunk.offsets) for chunk in chunks) >= self._events_per_step:
            return Progress.FULL
        return Progress.SOME if chunks or has_settled else Progress.NOTHING

    def _take_in(self, chunks: Sequence[Chunk], begun: set[int]) -> None:
        verdicts = {chunk.partition: self._verdicts(chunk) for chunk in chunks}
        rated = [self._rate(chunk, verdicts[chunk.partition]) for chunk in chunks]
        cells = [fold(*one) for one in rated]
        ends = {chunk.partition: chunk.offset_end for chunk in chunks}
        starts = {chunk.partition: chunk.offsets[0] for chunk in chunks}
        with transaction(self._store.pool) as connection:
            self._store.begin(connection, starts, begun)
            if self._counting is not None:
                for chunk, one in zip(chunks, rated, strict=True):
                    self._counting.count(connection, chunk.partition, chunk.offsets, *one)
            for one_cells in cells:
                self._store.add(connection, one_cells)
            self._remember(connection, chunks, verdicts)
            self._source.confirm(connection, list(ends))
            self._positions.store(connection, self.name, ends, self._clock.now())
        begun.update(ends)

    def _verdicts(self, chunk: Chunk) -> Verdicts:
        if chunk.partition == CORRECTIONS:
            return np.frombuffer(chunk.verdicts, np.uint8)
        return self._memory.judge(chunk)

    def _rate(self, chunk: Chunk, verdicts: Verdicts) -> Rated:
        if chunk.partition == CORRECTIONS:
            return corrected(chunk)
        columns = event_columns(table_of(chunk))
        self._rater = self._catalog.refresh_rater(self._rater)
        rated = self._rater.rate_columns(columns, len(chunk.offsets))
        return Rated(columns, rated, (verdicts == Verdict.ORIGINAL).astype(np.int64))

    def _remember(
        self, connection: Connection, chunks: Sequence[Chunk], verdicts: Mapping[int, Verdicts]
    ) -> None:
        if self._seen is None:
            return
        for chunk in chunks:
            if chunk.partition == CORRECTIONS:
                continue
            identities = identities_of(chunk.values, len(chunk.offsets))
            rows = np.flatnonzero(verdicts[chunk.partition] == Verdict.ORIGINAL).tolist()
            originals = [(identities[row], chunk.offsets[row]) for row in rows]
            ends = (chunk.offsets[0], chunk.offset_end)
            self._seen.add(connection, chunk.partition, originals, ends, self._clock.now())

    def _forget_old(self) -> None:
        now = self._clock.now()
        if self._seen is not None and now - self._forgot_at >= _FORGET_EVERY:
            self._forgot_at = now
            self._seen.forget(now - REMEMBERED_FOR)


def event_columns(table: pa.Table) -> Mapping[str, Any]:
    """What rating and counting look at of deliveries: integers as arrays, text as codes."""
    counted = [name for name in _COUNTED if name not in RATED_FIELDS]
    return {**columns_to_rate(table), **{name: coded(table.column(name)) for name in counted}}


def corrected(chunk: Chunk) -> Rated:
    """What rows of corrections take back and add: rated already."""
    named: dict[str, Sequence[Any]] = dict(zip(CORRECTION_FIELDS, chunk.values, strict=True))
    signs = np.broadcast_to(np.asarray(named["sign"], np.int64), len(chunk.offsets))
    return Rated(named, named, signs)
