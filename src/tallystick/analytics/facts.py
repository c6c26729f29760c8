"""Facts as Arrow tables: from deliveries, in the order of the table's columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tallystick.bounds import LATE_AFTER
from tallystick.clock import MINUTE

Named = Mapping[str, Any]
"""Field name -> Arrow, or an array."""

_TIME = pa.timestamp("us", tz="UTC")
_TEXT = pa.string()
_TOKENS = pa.int64()

FACT_TYPES: dict[str, pa.DataType] = {
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
    name for name in FACT_TYPES if name not in ("log_partition", "log_offset")
)
"""What a row of a correction holds, in order; its coordinates are those of the correction."""


def charge_keys_of(run_ids: pa.Array, occurred: pa.Array) -> pa.Array:
    """The charge key of each event, by its run and the time (micros) it occurred."""
    is_alone = pc.equal(run_ids, "")
    if not pc.any(is_alone).as_py():
        return run_ids
    moments = pc.if_else(is_alone, occurred, 0).to_numpy()
    minutes, places = np.unique(moments // MINUTE, return_inverse=True)
    keys = pa.array([charge_key_of("", int(minute) * MINUTE) for minute in minutes], _TEXT)
    return pc.if_else(is_alone, keys.take(pa.array(places)), run_ids)


def facts_table(columns: Named, rated: Named) -> pa.Table:
    """Build the Arrow table of facts from deliveries and what rating said of each.

    Columns are Arrow; text may be dictionaries.
    """
    run_ids = columns["run_id"]
    moments = columns["occurred_at"].cast(pa.int64())
    received = columns["received_at"].cast(pa.int64())
    count = len(moments)
    whole: dict[str, Any] = {
        **columns,
        **rated,
        "sign": pa.repeat(pa.scalar(1, pa.int8()), count),
        "correction_id": pa.repeat(pa.scalar("", _TEXT), count),
        "charge_key": charge_keys_of(run_ids, moments),
        "is_late": pc.greater(pc.subtract(received, moments), LATE_AFTER),
    }
    return pa.table({name: _array(whole[name], kind) for name, kind in FACT_TYPES.items()})


def deliveries_table(facts: pa.Table, kinds: Sequence[str]) -> pa.Table:
    """Build the Arrow table of deliveries that were not originals, from rows of facts."""
    columns = {name: facts.column(name) for name in _DELIVERY_TYPES if name != "kind"}
    return pa.table({**columns, "kind": pa.array(kinds, _TEXT)}).select(list(_DELIVERY_TYPES))


def _array(column: Any, kind: pa.DataType) -> pa.Array:
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        return pa.array(column, kind)
    is_right = column.type == kind or pa.types.is_dictionary(column.type)
    return column if is_right else column.cast(kind)
