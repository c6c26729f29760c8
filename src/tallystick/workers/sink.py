"""The sink: from the usage log to priced facts and rollups.

One step reads some batches, keeps the originals, prices them, appends facts and
deliveries, folds the rollups and only then moves its position. A crash anywhere in
between repeats the step: what already landed is read back and left out, so each event
becomes exactly one fact.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain, compress
from typing import Any, NamedTuple

import msgspec

from tallystick.analytics.facts import columns_of, deliveries_table, facts_table
from tallystick.analytics.store import FactStore
from tallystick.catalog import Catalog
from tallystick.clock import SECOND, Clock
from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.plumbing.log import LogBatch, PostgresLog, Verdict
from tallystick.plumbing.log.model import decode_payload
from tallystick.rating import Rater

_BATCHES_PER_STEP_MAX = 64
_STEP_SECONDS_MIN = 0.2
"""Each step makes new parts in ClickHouse; fewer, larger ones cost less to merge."""

_RATER_AGE_MAX = 2 * SECOND
_decoder = msgspec.msgpack.Decoder(tuple[list[list[Any]], bytes])
_DEFAULTS = [
    msgspec.to_builtins(value)
    for value in msgspec.to_builtins(
        Event(event_id="", event_type="", occurred_at=0, received_at=0, tenant_id="")
    )
]
_KIND_NAMES = {int(Verdict.DUPLICATE): "duplicate", int(Verdict.CONFLICT): "conflict"}


class _Deliveries(NamedTuple):
    """Events of one step with their offsets and verdicts."""

    rows: list[list[Any]]
    offsets: list[int]
    verdicts: bytes

    def select(self, mask: Sequence[bool]) -> _Deliveries:
        """Keep the deliveries where `mask` is true."""
        return _Deliveries(
            list(compress(self.rows, mask)),
            list(compress(self.offsets, mask)),
            bytes(compress(self.verdicts, mask)),
        )


class Sink:
    """Follows one partition of the log into the facts."""

    name = "sink"

    def __init__(self, log: PostgresLog, facts: FactStore, catalog: Catalog, clock: Clock) -> None:
        self._log = log
        self._facts = facts
        self._catalog = catalog
        self._clock = clock
        self._rater: Rater | None = None
        self._rater_loaded_at = 0
        self._stepped_at = 0.0
        self._position = 0
        self._watermarks: dict[str, int] = {}
        self._landed_until: int | None = None
        """Facts below this offset may have landed already; None: not read yet."""

    def recover(self) -> None:
        """Read positions and what has landed before the next step."""
        self._landed_until = None
        self._watermarks = {}

    def step(self) -> bool:
        """Take in the next batches; False when the log has no more."""
        if self._landed_until is None:
            self._position = self._log.position(self.name).offset
            self._landed_until = self._facts.query_landed_until(self._log.partition)
            self._facts.fold_until(self._position, self._watermarks)
        batches = self._log.read(self._position, batches_max=_BATCHES_PER_STEP_MAX)
        if not batches:
            return False
        self._take_in(batches)
        self._pace()
        return True

    def _take_in(self, batches: list[LogBatch]) -> None:
        deliveries = self._unpack(batches)
        is_original = [verdict == Verdict.ORIGINAL for verdict in deliveries.verdicts]
        self._append_facts(deliveries.select(is_original))
        self._append_deliveries(deliveries.select([not original for original in is_original]))
        offset_end = batches[-1].offset_end
        self._facts.fold_until(offset_end, self._watermarks)
        self._log.commit_position(self.name, offset_end, self._clock.now())
        self._position = offset_end

    def _unpack(self, batches: list[LogBatch]) -> _Deliveries:
        decoded = [decode_payload(batch.payload, _decoder) for batch in batches]
        rows = list(chain.from_iterable(events for events, _ in decoded))
        for row in rows:
            if len(row) < len(EVENT_FIELDS):  # written by an older version
                row.extend(_DEFAULTS[len(row) :])
        offsets = list(
            chain.from_iterable(range(batch.offset_start, batch.offset_end) for batch in batches)
        )
        whole = _Deliveries(rows, offsets, b"".join(verdicts for _, verdicts in decoded))
        if offsets[0] >= self._position:
            return whole
        return whole.select([offset >= self._position for offset in offsets])

    def _append_facts(self, originals: _Deliveries) -> None:
        originals = self._without_landed("facts", originals)
        if not originals.rows:
            return
        columns = columns_of(originals.rows)
        rated = self._current_rater().rate_columns(columns)
        self._facts.append(
            "facts", facts_table(columns, rated, originals.offsets, self._log.partition)
        )

    def _append_deliveries(self, others: _Deliveries) -> None:
        others = self._without_landed("deliveries", others)
        if not others.rows:
            return
        kinds = [_KIND_NAMES[verdict] for verdict in others.verdicts]
        self._facts.append(
            "deliveries",
            deliveries_table(columns_of(others.rows), kinds, others.offsets, self._log.partition),
        )

    def _without_landed(self, table: str, deliveries: _Deliveries) -> _Deliveries:
        if not deliveries.rows or self._position >= (self._landed_until or 0):
            return deliveries
        landed = self._facts.query_landed_offsets(
            table, self._log.partition, deliveries.offsets[0], deliveries.offsets[-1] + 1
        )
        return deliveries.select([offset not in landed for offset in deliveries.offsets])

    def _current_rater(self) -> Rater:
        now = self._clock.now()
        if self._rater is None or now - self._rater_loaded_at > _RATER_AGE_MAX:
            self._rater = self._catalog.refresh_rater(self._rater)
            self._rater_loaded_at = now
        return self._rater

    def _pace(self) -> None:
        rest = self._stepped_at + _STEP_SECONDS_MIN - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        self._stepped_at = time.monotonic()
