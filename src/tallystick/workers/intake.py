"""The intake: deliveries of one step become facts, each once, whoever reads them from where.

The sink takes in chunks of the log, a restore slices of the archive, both as tables; what becomes
of them is decided here alone. Events never become Python objects. Which runs were touched is
returned, to be marked with the positions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tallystick.analytics.facts import FACT_TYPES, deliveries_table, facts_table
from tallystick.analytics.store import FactStore
from tallystick.catalog import Catalog
from tallystick.errors import InvariantBroken
from tallystick.events.model import EventType
from tallystick.plumbing.log import KnownHorizons, Verdict
from tallystick.rating import Rater
from tallystick.rating.groups import Coded
from tallystick.rating.rater import NUMBER_FIELDS, RATED_FIELDS
from tallystick.workers.late import judge_expired, judge_late

_KINDS = {
    Verdict.DUPLICATE: "duplicate",
    Verdict.CONFLICT: "conflict",
    Verdict.CONTROL: "control",
    Verdict.EXPIRED: "expired",
}
_BROKEN = EventType.IMPORT_ERROR.value
_ENDS = pa.array([EventType.RUN_COMPLETED.value, EventType.RUN_FAILED.value])

Touched = dict[tuple[str, str], bool]
"""(tenant, charge key) -> whether its end was seen."""


class _Known(NamedTuple):
    """What is known of a partition since it was taken up."""

    epoch: int
    landed_until: int
    """Facts below this offset may have landed already."""


class Intake:
    """Rates, judges and appends; leaves out what landed before a crash."""

    def __init__(self, facts: FactStore, catalog: Catalog, horizons: KnownHorizons) -> None:
        self._facts = facts
        self._catalog = catalog
        self._horizons = horizons
        self._rater: Rater | None = None
        self._known: dict[int, _Known] = {}

    def forget(self) -> None:
        """Ask again what has landed."""
        self._known = {}

    def take_up(self, partition: int, epoch: int, first: int) -> None:
        """Before the first deliveries of a partition: find out what has landed from there on."""
        known = self._known.get(partition)
        if known is None or known.epoch != epoch:
            landed = self._facts.query_landed_until(partition, first)
            self._known[partition] = _Known(epoch, landed)

    def take_in(self, table: pa.Table) -> Touched:
        """Append facts of originals, and deliveries of others; return the runs touched.

        `table` holds deliveries of events, as `archive.table_of` makes it.
        """
        table = table.unify_dictionaries().combine_chunks()
        rated = self._current_rater().rate_columns(columns_to_rate(table), table.num_rows)
        facts = facts_table({name: table.column(name) for name in table.column_names}, rated)
        verdicts = judge_late(self._facts, facts, table.column("verdict").to_numpy())
        verdicts = judge_expired(self._horizons.load(), facts, verdicts)
        self._require_same_events(facts)
        is_original = verdicts == Verdict.ORIGINAL
        if is_original.all():
            self._append_missing("facts", facts)
            return touched_by(facts)
        others = facts.filter(pa.array(~is_original))
        facts = facts.filter(pa.array(is_original))
        self._append_missing("facts", facts)
        kinds = [_KINDS[Verdict(verdict)] for verdict in verdicts[~is_original]]
        self._append_missing("deliveries", deliveries_table(others, kinds))
        return touched_by(facts)

    def correct(self, table: pa.Table) -> Touched:
        """Append rows of corrections."""
        facts = table.select(list(FACT_TYPES))
        self._require_same_events(facts)
        self._append_missing("facts", facts)
        return dict.fromkeys(touched_by(facts), True)

    def _require_same_events(self, table: pa.Table) -> None:
        """Raise InvariantBroken when other events landed at these offsets.

        Then the log was set back and went another way since: by its offsets alone, what is new
        would be taken for what landed.
        """
        for partition, start, end in self._begun(table):
            own = pc.equal(table.column("log_partition"), partition)
            # the id of a broken message hangs on the key that hides its content
            read = table.filter(pc.and_(own, pc.not_equal(table.column("event_type"), _BROKEN)))
            names = ("log_offset", "tenant_id", "event_id")
            places, *identities = (read.column(name).to_pylist() for name in names)
            landed = self._facts.query_landed_events(partition, start, end)
            for place, *identity in zip(places, *identities, strict=True):
                if landed.get(place, tuple(identity)) != tuple(identity):
                    raise InvariantBroken(
                        f"at partition {partition}, offset {place} the log has another event than "
                        "ClickHouse: it was set back, and appended to since. Rebuild the facts "
                        "from the log: tallystick replay --restored (docs/pipeline.md)"
                    )

    def _append_missing(self, name: str, table: pa.Table) -> None:
        """Append rows, but those that landed before a crash."""
        for partition, start, end in self._begun(table):
            own = pc.equal(table.column("log_partition"), partition)
            landed = self._facts.query_landed_offsets(name, partition, start, end)
            has_landed = pc.is_in(table.column("log_offset"), pa.array(landed, pa.uint64()))
            table = table.filter(pc.invert(pc.and_(own, has_landed)))
        if table.num_rows:
            self._facts.append(name, table)

    def _begun(self, table: pa.Table) -> list[tuple[int, int, int]]:
        """Partitions of which some rows may have landed: (partition, first, last + 1 offset)."""
        partitions, offsets = table.column("log_partition"), table.column("log_offset")
        begun = []
        for partition in pc.unique(partitions).to_pylist():
            range_ = pc.min_max(offsets.filter(pc.equal(partitions, partition))).as_py()
            if range_["min"] < self._known[partition].landed_until:
                begun.append((partition, range_["min"], range_["max"] + 1))
        return begun

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


def columns_to_rate(table: pa.Table) -> dict[str, Any]:
    """What rating looks at of deliveries: integers as arrays, text as codes."""
    return {
        name: _integers(table.column(name))
        if name in NUMBER_FIELDS
        else _numbers(table.column(name))
        if name == "latency_ms"
        else coded(table.column(name))
        for name in RATED_FIELDS
    }


def _integers(column: pa.ChunkedArray) -> Any:
    return column.cast(pa.int64()).to_numpy()


def _numbers(column: pa.ChunkedArray) -> Any:
    values = column.to_numpy().astype(object)
    values[column.is_null().to_numpy()] = None
    return values


def coded(column: pa.ChunkedArray) -> Coded:
    """Text as codes into its distinct values."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        whole = whole.chunk(0)
    return Coded(whole.indices.to_numpy().astype(np.int64), whole.dictionary.to_pylist())
