"""Restoring: from the archive to facts, by whole columns; then the sink goes on with the log.

It does what the sink does, in its name and with its positions, so a crash is finished by either
of them. Events never become Python objects, which makes it several times faster than the sink.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tallystick.analytics.facts import CORRECTION_FIELDS
from tallystick.archive import ArchiveSource, Slice
from tallystick.events.model import EVENT_FIELDS
from tallystick.plumbing.log import CORRECTIONS
from tallystick.rating.groups import Coded
from tallystick.rating.rater import NUMBER_FIELDS, RATED_FIELDS
from tallystick.workers.intake import Deliveries, Touched
from tallystick.workers.loop import Follower, Progress
from tallystick.workers.taking import Taking

DICTIONARIES = (
    *("tenant_id", "event_type", "source", "workflow", "agent", "project_id", "team", "product"),
    *("feature", "customer_tier", "environment", "provider", "model", "operation", "service_tier"),
    *("usage_scope", "usage_quality", "tool", "error_code", "reject_code", "correction_id"),
    *("cost_quality", "cost_amount", "cost_currency"),
)
"""Text with few values: read from Parquet as it is stored, and written to ClickHouse so."""


class Restorer(Taking[ArchiveSource]):
    """Takes in the archive from the sink's position on."""

    def step(self) -> Progress:
        """Take in the next slice; NOTHING when the archive has no more."""
        found = self._source.read_slice()
        if found is None:
            return Progress.NOTHING
        self._intake.take_up(found.partition, found.epoch)
        self._finish(self._take_in(found), {found.partition: found.offset_end})
        return Progress.FULL

    def close(self) -> None:
        """Let the source go."""
        self._source.close()

    def _take_in(self, found: Slice) -> Touched:
        table = found.table.combine_chunks()
        offsets = table.column("log_offset")
        if found.partition == CORRECTIONS:
            return self._intake.correct([table.column(name) for name in CORRECTION_FIELDS], offsets)
        deliveries = Deliveries(
            columns={name: table.column(name) for name in EVENT_FIELDS},
            rated_by=columns_to_rate(table),
            partitions=[found.partition],
            offsets=offsets,
            verdicts=table.column("verdict").to_numpy(),
        )
        return self._intake.take_in(deliveries)


def columns_to_rate(table: pa.Table) -> dict[str, Any]:
    """What rating looks at of archived events: integers as arrays, text as codes."""
    return {
        name: _integers(table.column(name))
        if name in NUMBER_FIELDS
        else _numbers(table.column(name))
        if name == "latency_ms"
        else _coded(table.column(name))
        for name in RATED_FIELDS
    }


def _integers(column: pa.ChunkedArray) -> Any:
    return column.cast(pa.int64()).to_numpy()


def _numbers(column: pa.ChunkedArray) -> Any:
    values = column.to_numpy().astype(object)
    values[column.is_null().to_numpy()] = None
    return values


def _coded(column: pa.ChunkedArray) -> Coded:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    return Coded(whole.indices.to_numpy().astype(np.int64), whole.dictionary.to_pylist())


class RestoreThenFollow:
    """Restores first, then is the sink: one follower, so that the two never run at once."""

    name = "sink"

    def __init__(self, restorer: Restorer, sink: Follower) -> None:
        self._restorer: Restorer | None = restorer
        self._sink = sink

    def recover(self) -> None:
        """Read again from the stored positions."""
        (self._restorer or self._sink).recover()

    def step(self) -> bool | Progress:
        """Take in the next part of the archive, or of the log once that is done."""
        if self._restorer is not None:
            if progress := self._restorer.step():
                return progress
            self._restorer.close()
            self._restorer = None
            self._sink.recover()
        return self._sink.step()
