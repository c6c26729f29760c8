"""Late events that the deduplication index may have forgotten: is an earlier one known?

What counts is what came earlier in the same partition, landed or in the same step, so that a
replay in other steps says the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tallystick.analytics.store import FactStore
from tallystick.plumbing.log import Verdict


class Delivery(NamedTuple):
    """One original as the log has it: its identity, its content and its place."""

    tenant_id: str
    event_id: str
    digest: bytes
    offset: int


def judge_late(
    facts: FactStore, partition: int, late: Sequence[Delivery], same_step: Sequence[Delivery]
) -> Mapping[int, Verdict]:
    """Return offset -> DUPLICATE or CONFLICT for late originals that are none.

    `same_step` holds the originals of this step with the same event ids, late or not.
    """
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for fact in facts.query_identities(sorted({one.event_id for one in late})):
        if fact["log_partition"] == partition:
            key = (fact["tenant_id"], fact["event_id"])
            place = (int(fact["log_offset"]), fact["digest"])
            first[key] = min(first.get(key, place), place)
    for one in same_step:
        key, place = (one.tenant_id, one.event_id), (one.offset, one.digest.hex().upper())
        first[key] = min(first.get(key, place), place)
    verdicts = {}
    for one in late:
        offset, digest = first[one.tenant_id, one.event_id]
        if offset < one.offset:
            is_same = digest == one.digest.hex().upper()
            verdicts[one.offset] = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
    return verdicts
