"""The intake: deliveries of one step become facts, each once, whoever reads them from where.

The sink takes in chunks of the log, a restore slices of the archive; what becomes of them is
decided here alone. Which runs were touched is returned, to be marked with the positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tallystick.analytics.facts import corrections_table, deliveries_table, facts_table
from tallystick.analytics.store import FactStore
from tallystick.catalog import Catalog
from tallystick.events.model import EventType
from tallystick.plumbing.log import CORRECTIONS, Verdict
from tallystick.rating import Rater
from tallystick.workers.late import Verdicts, judge_late

_KINDS = {
    Verdict.DUPLICATE: "duplicate",
    Verdict.CONFLICT: "conflict",
    Verdict.CONTROL: "control",
}
_ENDS = pa.array([EventType.RUN_COMPLETED.value, EventType.RUN_FAILED.value])

Touched = dict[tuple[str, str], bool]
"""(tenant, charge key) -> whether its end was seen."""


class Deliveries(NamedTuple):
    """Deliveries of one step, with their coordinates and verdicts."""

    columns: Mapping[str, Any]
    """Events as facts take them: lists, or Arrow."""
    rated_by: Mapping[str, Any]
    """The same as the rater takes them: lists, or arrays and codes."""
    partitions: Sequence[int]
    offsets: Any
    verdicts: Verdicts


class _Known(NamedTuple):
    """What is known of a partition since it was taken up."""

    epoch: int
    landed_until: int
    """Facts below this offset may have landed already."""


class Intake:
    """Rates, judges and appends; leaves out what landed before a crash."""

    def __init__(self, facts: FactStore, catalog: Catalog) -> None:
        self._facts = facts
        self._catalog = catalog
        self._rater: Rater | None = None
        self._known: dict[int, _Known] = {}

    def forget(self) -> None:
        """Ask again what has landed."""
        self._known = {}

    def take_up(self, partition: int, epoch: int) -> None:
        """Before the first deliveries of a partition: find out what has landed of it."""
        known = self._known.get(partition)
        if known is None or known.epoch != epoch:
            landed = self._facts.query_landed_until(partition)
            self._known[partition] = _Known(epoch, landed)

    def take_in(self, deliveries: Deliveries) -> Touched:
        """Append facts of originals and deliveries of others; return the runs touched."""
        rater = self._current_rater()
        rated = rater.rate_columns(deliveries.rated_by, len(deliveries.offsets))
        table = facts_table(deliveries.columns, rated, deliveries.partitions, deliveries.offsets)
        verdicts = judge_late(self._facts, table, deliveries.verdicts)
        is_original = verdicts == Verdict.ORIGINAL
        if is_original.all():
            self._append_missing("facts", table)
            return touched_by(table)
        facts, others = table.filter(pa.array(is_original)), table.filter(pa.array(~is_original))
        self._append_missing("facts", facts)
        kinds = [_KINDS[Verdict(verdict)] for verdict in verdicts[~is_original]]
        self._append_missing("deliveries", deliveries_table(others, kinds))
        return touched_by(facts)

    def correct(self, columns: Sequence[Sequence[Any]], offsets: Sequence[int]) -> Touched:
        """Append rows of corrections (columns in the order of CORRECTION_FIELDS)."""
        table = corrections_table(columns, [CORRECTIONS], offsets)
        self._append_missing("facts", table)
        return dict.fromkeys(touched_by(table), True)

    def _append_missing(self, name: str, table: pa.Table) -> None:
        """Append rows, but those that landed before a crash."""
        partitions, offsets = table.column("log_partition"), table.column("log_offset")
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
            partitions, offsets = table.column("log_partition"), table.column("log_offset")
        if table.num_rows:
            self._facts.append(name, table)

    def _current_rater(self) -> Rater:
        """Prices as of now: every version recorded before the events at hand were received."""
        self._rater = self._catalog.refresh_rater(self._rater)
        return self._rater


def touched_by(facts: pa.Table) -> Touched:
    """Runs whose usage the facts change, with whether their end is among them."""
    kinds = facts.column("event_type")
    columns = {
        "tenant_id": facts.column("tenant_id"),
        "charge_key": facts.column("charge_key"),
        "has_ended": pc.is_in(kinds, value_set=_ENDS),
    }
    usage = pa.table(columns).filter(pc.not_equal(kinds, EventType.IMPORT_ERROR.value))
    runs = usage.group_by(["tenant_id", "charge_key"], use_threads=False).aggregate(
        [("has_ended", "any")]
    )
    ended = runs.column("has_ended_any").to_pylist()
    tenants, keys = (runs.column(name).to_pylist() for name in ("tenant_id", "charge_key"))
    return dict(zip(zip(tenants, keys, strict=True), ended, strict=True))


def verdicts_of(verdicts: bytes) -> Verdicts:
    """Verdict bytes as an array."""
    return np.frombuffer(verdicts, np.uint8)
