"""Late events: is an earlier one known that the deduplication index may have forgotten, and had
their time expired?

What counts is what came earlier in the same partition, landed or in the same step, and where an
event lies in the log, so that a replay in other steps says the same.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tallystick.analytics.store import FactStore
from tallystick.plumbing.log import Horizon, Verdict

_log = logging.getLogger(__name__)

Verdicts = npt.NDArray[np.uint8]
_Identity = tuple[int, str, str]
_IDENTITY = ("log_partition", "tenant_id", "event_id", "log_offset", "content_digest")


def judge_late(facts: FactStore, table: pa.Table, verdicts: Verdicts) -> Verdicts:
    """Return the verdicts of one step's deliveries, late originals that are none set right.

    `table` has a row of facts for each of them, `verdicts` is what the index said.
    """
    is_original = verdicts == Verdict.ORIGINAL
    is_late = is_original & table.column("is_late").to_numpy()
    if not is_late.any():
        return verdicts
    late = table.filter(pa.array(is_late))
    ids, tenants = (late.column(name).unique() for name in ("event_id", "tenant_id"))
    same = is_original & pc.is_in(table.column("event_id"), value_set=ids).to_numpy()
    rows = np.flatnonzero(same)
    columns = (table.column(name).take(pa.array(rows)).to_pylist() for name in _IDENTITY)
    deliveries = list(zip(*columns, strict=True))
    first: dict[_Identity, tuple[int, str]] = {}
    for fact in facts.query_identities(tenants.to_pylist(), sorted(ids.to_pylist())):
        identity = (fact["log_partition"], fact["tenant_id"], fact["event_id"])
        _note(first, identity, int(fact["log_offset"]), fact["digest"])
    for partition, tenant, event_id, offset, digest in deliveries:
        _note(first, (partition, tenant, event_id), offset, digest.hex().upper())
    judged = verdicts.copy()
    for row, (partition, tenant, event_id, offset, digest) in zip(rows, deliveries, strict=True):
        place, known = first[partition, tenant, event_id]
        if is_late[row] and place < offset:
            is_same = known == digest.hex().upper()
            judged[row] = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
    return judged


def judge_expired(horizons: Sequence[Horizon], table: pa.Table, verdicts: Verdicts) -> Verdicts:
    """Return the verdicts of one step's deliveries, with those of expired time set right.

    Doors refuse them, and where the log ends is noted an hour later. What lies behind that end all
    the same (a door hung, a clock was wrong) must not become a fact: charges of then are final.
    """
    judged = verdicts
    for horizon in horizons:
        if horizon.ends is None:
            continue
        is_old = table.column("occurred_at").cast(pa.int64()).to_numpy() < horizon.horizon_at
        if not is_old.any():
            continue
        partitions = table.column("log_partition").to_numpy()
        ends = np.array([horizon.ends.get(one, 0) for one in partitions.tolist()], dtype=np.uint64)
        is_behind = table.column("log_offset").to_numpy() >= ends
        expired = is_old & is_behind & (judged == Verdict.ORIGINAL)
        if expired.any():
            _log.warning("%d events of a time that has expired are set aside", expired.sum())
            judged = np.where(expired, np.uint8(Verdict.EXPIRED), judged)
    return judged


def _note(
    first: dict[_Identity, tuple[int, str]], identity: _Identity, offset: int, digest: str
) -> None:
    place = (offset, digest)
    first[identity] = min(first.get(identity, place), place)
