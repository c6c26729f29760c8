"""Restoring: from the archive to facts, by whole columns; then the sink goes on with the log.

It does what the sink does, in its name and with its positions, so a crash is finished by either
of them: what landed is read back and left out. Rows never become Python objects, which is what
makes it several times faster than the sink.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from psycopg_pool import ConnectionPool

from tallystick.analytics.columnar import corrections_of, deliveries_of, facts_of
from tallystick.analytics.store import FactStore
from tallystick.archive import ArchiveSource, Slice
from tallystick.bounds import LATE_AFTER
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.events.model import EventType
from tallystick.plumbing.log import CORRECTIONS, Positions, Verdict
from tallystick.plumbing.postgres import transaction
from tallystick.rating import Rater
from tallystick.rating.columnar import rate_table
from tallystick.workers.late import Delivery, judge_late
from tallystick.workers.loop import Follower
from tallystick.workers.pending import PendingRuns

DICTIONARIES = (
    *("tenant_id", "event_type", "source", "workflow", "agent", "project_id", "team", "product"),
    *("feature", "customer_tier", "environment", "provider", "model", "operation", "service_tier"),
    *("usage_scope", "usage_quality", "tool", "error_code", "reject_code", "correction_id"),
    *("cost_quality", "cost_amount", "cost_currency"),
)
"""Text with few values: read from Parquet as it is stored, and written to ClickHouse so."""

_KINDS = {Verdict.DUPLICATE: "duplicate", Verdict.CONFLICT: "conflict"}
_ENDS = [EventType.RUN_COMPLETED.value, EventType.RUN_FAILED.value]

Verdicts = npt.NDArray[np.uint8]
Touched = dict[tuple[str, str], bool]


class Restorer:
    """Takes in the archive from the sink's position on."""

    name = "sink"

    def __init__(
        self,
        source: ArchiveSource,
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
        self._landed: dict[tuple[int, int], int] = {}

    def recover(self) -> None:
        """Read again from the stored positions."""
        self._source.rewind()

    def step(self) -> bool:
        """Take in the next slice; False when the archive has no more."""
        found = self._source.read_slice()
        if found is None:
            return False
        is_correction = found.partition == CORRECTIONS
        touched = self._correct(found) if is_correction else self._take_in(found)
        now = self._clock.now()
        with transaction(self._pool) as connection:
            self._pending.mark(connection, touched, now)
            self._positions.store(connection, self.name, {found.partition: found.offset_end}, now)
        return True

    def close(self) -> None:
        """Let the source go."""
        self._source.close()

    def _take_in(self, found: Slice) -> Touched:
        table, partition = found.table, found.partition
        verdicts = self._judge(table, partition)
        is_original = verdicts == Verdict.ORIGINAL
        originals = table if is_original.all() else table.filter(pa.array(is_original))
        touched: Touched = {}
        if originals.num_rows:
            self._rater = self._catalog.refresh_rater(self._rater)
            facts = facts_of(originals, rate_table(self._rater, originals))
            touched = touched_by(facts)
            self._append("facts", facts, found)
        if not is_original.all():
            others = table.filter(pa.array(~is_original))
            kinds = pa.array([_KINDS[Verdict(one)] for one in verdicts[~is_original]])
            self._append("deliveries", deliveries_of(others, kinds), found)
        return touched

    def _correct(self, found: Slice) -> Touched:
        table = corrections_of(found.table)
        self._append("facts", table, found)
        keys = table.select(["tenant_id", "charge_key"]).to_pylist()
        return dict.fromkeys(((one["tenant_id"], one["charge_key"]) for one in keys), True)

    def _append(self, name: str, table: pa.Table, found: Slice) -> None:
        """Append what has not landed yet."""
        known = (found.partition, found.epoch)
        if known not in self._landed:
            self._landed[known] = self._facts.query_landed_until(found.partition)
        offsets = table.column("log_offset").to_numpy()
        if offsets[0] < self._landed[known]:
            start, end = int(offsets[0]), int(offsets[-1]) + 1
            landed = self._facts.query_landed_offsets(name, found.partition, start, end)
            table = table.filter(pa.array(~np.isin(offsets, np.array(list(landed), np.uint64))))
        if table.num_rows:
            self._facts.append(name, table)

    def _judge(self, table: pa.Table, partition: int) -> Verdicts:
        verdicts: Verdicts = table.column("verdict").to_numpy().copy()
        age = pc.subtract(
            table.column("received_at").cast(pa.int64()),
            table.column("occurred_at").cast(pa.int64()),
        ).to_numpy()
        is_late = (age > LATE_AFTER) & (verdicts == Verdict.ORIGINAL)
        if not is_late.any():
            return verdicts
        late = _deliveries_of(table.filter(pa.array(is_late)))
        ids = pa.array(sorted({one.event_id for one in late}))
        is_same = pc.is_in(table.column("event_id"), value_set=ids).to_numpy()
        same = _deliveries_of(table.filter(pa.array(is_same & (verdicts == Verdict.ORIGINAL))))
        judged = judge_late(self._facts, partition, late, same)
        offsets = table.column("log_offset").to_numpy()
        for offset, verdict in judged.items():
            verdicts[np.searchsorted(offsets, offset)] = verdict
        return verdicts


class RestoreThenFollow:
    """Restores first, then is the sink: one follower, so that the two never run at once."""

    name = "sink"

    def __init__(self, restorer: Restorer, sink: Follower) -> None:
        self._restorer: Restorer | None = restorer
        self._sink = sink

    def recover(self) -> None:
        """Read again from the stored positions."""
        (self._restorer or self._sink).recover()

    def step(self) -> bool:
        """Take in the next part of the archive, or of the log once that is done."""
        if self._restorer is not None:
            if self._restorer.step():
                return True
            self._restorer.close()
            self._restorer = None
            self._sink.recover()
        return self._sink.step()


def touched_by(facts: pa.Table) -> Touched:
    """Runs whose usage the facts change, with whether their end is among them."""
    kinds = facts.column("event_type")
    columns = {
        "tenant_id": facts.column("tenant_id"),
        "charge_key": facts.column("charge_key"),
        "has_ended": pc.is_in(kinds, value_set=pa.array(_ENDS)),
    }
    usage = pa.table(columns).filter(pc.not_equal(kinds, EventType.IMPORT_ERROR.value))
    runs = usage.group_by(["tenant_id", "charge_key"]).aggregate([("has_ended", "any")])
    ended = runs.column("has_ended_any").to_pylist()
    tenants, keys = (runs.column(name).to_pylist() for name in ("tenant_id", "charge_key"))
    return dict(zip(zip(tenants, keys, strict=True), ended, strict=True))


def _deliveries_of(table: pa.Table) -> list[Delivery]:
    names = ("tenant_id", "event_id", "content_digest", "log_offset")
    columns = (table.column(name).to_pylist() for name in names)
    return [Delivery(*values) for values in zip(*columns, strict=True)]
