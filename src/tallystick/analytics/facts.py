"""Facts as Arrow tables: from columns of the log, in the order of the table's columns."""

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
"""Field name -> its values, or one value for all (see plumbing.log.columns), or Arrow."""

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


def facts_table(
    columns: Named, rated: Named, partitions: Sequence[int], offsets: Sequence[int]
) -> pa.Table:
    """Build the Arrow table of facts from event columns and what rating said of each.

    Columns that are Arrow already are taken as they are; text may be dictionaries.
    """
    count = len(offsets)
    occurred = _array(columns["occurred_at"], _TIME, count)
    received = _array(columns["received_at"], _TIME, count)
    run_ids = _array(columns["run_id"], _TEXT, count)
    moments = occurred.cast(pa.int64())
    late = pc.greater(pc.subtract(received.cast(pa.int64()), moments), LATE_AFTER)
    whole: dict[str, Any] = {
        **columns,
        **rated,
        "sign": [1],
        "correction_id": [""],
        "occurred_at": occurred,
        "received_at": received,
        "run_id": run_ids,
        "charge_key": charge_keys_of(run_ids, moments),
        "log_partition": partitions,
        "log_offset": offsets,
        "is_late": late,
    }
    return _table(whole, FACT_TYPES, count)


def corrections_table(
    columns: Sequence[Sequence[Any]], partitions: Sequence[int], offsets: Sequence[int]
) -> pa.Table:
    """Build the Arrow table of correction rows (columns in the order of CORRECTION_FIELDS)."""
    named = dict(zip(CORRECTION_FIELDS, columns, strict=True))
    whole = {**named, "log_partition": partitions, "log_offset": offsets}
    return _table(whole, FACT_TYPES, len(offsets))


def deliveries_table(facts: pa.Table, kinds: Sequence[str]) -> pa.Table:
    """Build the Arrow table of deliveries that were not originals, from rows of facts."""
    columns = {name: facts.column(name) for name in _DELIVERY_TYPES if name != "kind"}
    return pa.table({**columns, "kind": pa.array(kinds, _TEXT)}).select(list(_DELIVERY_TYPES))


def _table(columns: Named, types: Mapping[str, pa.DataType], count: int) -> pa.Table:
    return pa.table({name: _array(columns[name], kind, count) for name, kind in types.items()})


def _array(column: Any, kind: pa.DataType, count: int) -> pa.Array:
    if isinstance(column, pa.Array | pa.ChunkedArray):
        is_right = column.type == kind or pa.types.is_dictionary(column.type)
        return column if is_right else column.cast(kind)
    if len(column) == 1 and count != 1:
        return pa.repeat(pa.scalar(column[0], kind), count)
    return pa.array(column, kind)
