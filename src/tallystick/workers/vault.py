"""The Policy Vault's follower: from the usage log to what was spent, without ClickHouse.

It reads the same deliveries as the sink and rates them by the same cards, so both come to the
same nano-dollars on ways of their own. One step reads chunks, sums what counts, and stores
sums and positions in one transaction: a crash repeats a step that left nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tallystick.analytics.facts import CORRECTION_FIELDS
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.enforcement.vault import Cells, VaultStore, fold
from tallystick.enforcement.vault.model import FOLLOWER
from tallystick.events.model import EVENT_FIELDS
from tallystick.events.promotion import DEFAULTS, fill_columns
from tallystick.plumbing.log import CORRECTIONS, Chunk, Positions, Source, Verdict
from tallystick.plumbing.log.columns import complete
from tallystick.plumbing.postgres import transaction
from tallystick.rating import Rater

EVENTS_PER_STEP_MAX = 50_000


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
        events_per_step: int = EVENTS_PER_STEP_MAX,
    ) -> None:
        self._source = source
        self._positions = positions
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._events_per_step = events_per_step
        self._rater: Rater | None = None
        self._begun: set[int] | None = None

    def recover(self) -> None:
        """Read again from the stored positions."""
        self._source.rewind()
        self._store.forget()
        self._begun = None

    def step(self) -> bool:
        """Count the next deliveries; False when there are no more."""
        if self._begun is None:
            self._begun = set(self._positions.load(self.name))
        chunks = self._source.read(self._events_per_step)
        if not chunks:
            return False
        counted = [self._count(chunk) for chunk in chunks]
        ends = {chunk.partition: chunk.offset_end for chunk in chunks}
        with transaction(self._store.pool) as connection:
            starts = {one.partition: one.offsets[0] for one in chunks}
            self._store.begin(connection, starts, self._begun)
            for cells in counted:
                self._store.add(connection, cells)
            self._source.confirm(connection, list(ends))
            self._positions.store(connection, self.name, ends, self._clock.now())
        self._begun.update(ends)
        return True

    def _count(self, chunk: Chunk) -> Cells:
        if chunk.partition == CORRECTIONS:
            return corrected(chunk)
        columns = event_columns(chunk)
        self._rater = self._catalog.refresh_rater(self._rater)
        rated = self._rater.rate_columns(columns, len(chunk.offsets))
        verdicts = np.frombuffer(chunk.verdicts, np.uint8)
        return fold(columns, rated, (verdicts == Verdict.ORIGINAL).astype(np.int64))


def event_columns(chunk: Chunk) -> Mapping[str, Any]:
    """Events of the log by field; those of older writers completed."""
    filled = fill_columns(chunk.columns, len(chunk.offsets))
    return dict(zip(EVENT_FIELDS, complete(filled, DEFAULTS), strict=True))


def corrected(chunk: Chunk) -> Cells:
    """What rows of corrections take back and add: rated already."""
    named: dict[str, Sequence[Any]] = dict(zip(CORRECTION_FIELDS, chunk.columns, strict=True))
    signs = np.broadcast_to(np.asarray(named["sign"], np.int64), len(chunk.offsets))
    return fold(named, named, signs)
