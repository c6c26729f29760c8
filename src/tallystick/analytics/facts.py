"""Facts as columns: from log events to Arrow tables, in the order of the table's columns.

Events travel as columns (one list a field) because that is what both ends want: msgpack
arrays transpose in one call, and Arrow takes lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from tallystick.bounds import LATE_AFTER
from tallystick.clock import MINUTE
from tallystick.events.model import EVENT_FIELDS

Columns = dict[str, Sequence[Any]]
"""Field name -> values, all of one length."""

_TIME = pa.timestamp("us", tz="UTC")
_TEXT = pa.string()
_TOKENS = pa.int64()

_FACT_TYPES: dict[str, pa.DataType] = {
    "sign": pa.int8(),
    "correction_id": _TEXT,
    "tenant_id": _TEXT,
    "charge_key": _TEXT,
    "occurred_at": _TIME,
    "log_partition": pa.uint16(),
    "log_offset": pa.uint64(),
    "event_id": _TEXT,
    "event_type": _TEXT,
    "received_at": _TIME,
    "is_late": pa.bool_(),
    "run_id": _TEXT,
    "attempt": pa.uint32(),
    "source": _TEXT,
    "schema_version": pa.uint32(),
    "workflow": _TEXT,
    "agent": _TEXT,
    "user_id": _TEXT,
    "project_id": _TEXT,
    "team": _TEXT,
    "product": _TEXT,
    "feature": _TEXT,
    "customer_tier": _TEXT,
    "environment": _TEXT,
    "parent_run_id": _TEXT,
    "root_run_id": _TEXT,
    "request_id": _TEXT,
    "provider": _TEXT,
    "model": _TEXT,
    "operation": _TEXT,
    "service_tier": _TEXT,
    "is_batch": pa.bool_(),
    "usage_scope": _TEXT,
    "usage_quality": _TEXT,
    "tokens_input": _TOKENS,
    "tokens_output": _TOKENS,
    "tokens_cache_read": _TOKENS,
    "tokens_cache_write_5m": _TOKENS,
    "tokens_cache_write_1h": _TOKENS,
    "tokens_reasoning": _TOKENS,
    "latency_ms": pa.float64(),
    "tool": _TEXT,
    "tool_call_id": _TEXT,
    "error_code": _TEXT,
    "attrs": _TEXT,
    "content_digest": pa.binary(16),
    "reject_code": _TEXT,
    "cost_units": pa.int64(),
    "cost_quality": _TEXT,
    "credit_units": pa.int64(),
    "cost_version": pa.uint32(),
    "credit_version": pa.uint32(),
}

FACT_TYPES = _FACT_TYPES
"""Columns of the facts table in order, with their Arrow types."""

_DELIVERY_TYPES: dict[str, pa.DataType] = {
    "tenant_id": _TEXT,
    "run_id": _TEXT,
    "event_id": _TEXT,
    "event_type": _TEXT,
    "kind": _TEXT,
    "log_partition": pa.uint16(),
    "log_offset": pa.uint64(),
    "received_at": _TIME,
}

DELIVERY_TYPES = _DELIVERY_TYPES
"""Columns of the table of deliveries in order, with their Arrow types."""


def columns_of(rows: Sequence[Sequence[Any]]) -> Columns:
    """Transpose event arrays into columns by field name.

    >>> columns_of([])["event_id"]
    ()
    """
    if not rows:
        return dict.fromkeys(EVENT_FIELDS, ())
    return dict(zip(EVENT_FIELDS, zip(*rows, strict=True), strict=True))


def charge_key_of(run_id: str, occurred_at: int) -> str:
    """Return what an event's usage is charged under: its run, or else its minute.

    Usage without a run is charged per tenant and minute; run ids beginning with
    "tallystick:" are refused at the door, so the two never meet.

    >>> charge_key_of("", 0)
    'tallystick:minute:1970-01-01T00:00Z'
    """
    if run_id:
        return run_id
    minute = datetime.fromtimestamp(occurred_at // MINUTE * 60, tz=UTC)
    return f"tallystick:minute:{minute:%Y-%m-%dT%H:%M}Z"


CORRECTION_FIELDS: tuple[str, ...] = tuple(
    name for name in _FACT_TYPES if name not in ("log_partition", "log_offset")
)
"""What a row of a correction holds, in order; its coordinates are those of the correction."""


def facts_table(
    columns: Columns,
    rated: Mapping[str, Sequence[Any]],
    partitions: Sequence[int],
    offsets: Sequence[int],
) -> pa.Table:
    """Build the Arrow table of facts from event columns and what rating said of each."""
    occurred, received = columns["occurred_at"], columns["received_at"]
    whole: Columns = {
        **columns,
        **rated,
        "sign": [1] * len(offsets),
        "correction_id": [""] * len(offsets),
        "charge_key": [
            run_id or charge_key_of("", moment)
            for run_id, moment in zip(columns["run_id"], occurred, strict=True)
        ],
        "log_partition": partitions,
        "log_offset": offsets,
        "is_late": [
            arrival - claim > LATE_AFTER for arrival, claim in zip(received, occurred, strict=True)
        ],
    }
    return _table(whole, _FACT_TYPES)


def corrections_table(
    rows: Sequence[Sequence[Any]], partitions: Sequence[int], offsets: Sequence[int]
) -> pa.Table:
    """Build the Arrow table of correction rows (values in the order of CORRECTION_FIELDS)."""
    columns = dict(zip(CORRECTION_FIELDS, zip(*rows, strict=True), strict=True))
    whole: Columns = {**columns, "log_partition": partitions, "log_offset": offsets}
    return _table(whole, _FACT_TYPES)


def deliveries_table(
    columns: Columns, kinds: Sequence[str], partitions: Sequence[int], offsets: Sequence[int]
) -> pa.Table:
    """Build the Arrow table of deliveries that were not originals."""
    whole: Columns = {
        **columns,
        "kind": kinds,
        "log_partition": partitions,
        "log_offset": offsets,
    }
    return _table(whole, _DELIVERY_TYPES)


def _table(columns: Columns, types: Mapping[str, pa.DataType]) -> pa.Table:
    return pa.table({name: pa.array(columns[name], kind) for name, kind in types.items()})
