"""Deliveries as typed columns: from columns of the log to Arrow tables, and back.

Columns that the log holds packed become Arrow without a look at their values, and text with few
values becomes dictionaries: whoever follows the log works on these tables.

Batches and objects of an older version have fewer columns; what they lack is filled as every
reader of the log fills it: a promoted field from attrs, any other by the event's default.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tallystick.analytics.facts import CORRECTION_FIELDS, FACT_TYPES
from tallystick.archive.model import FORMAT
from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.events.promotion import DEFAULTS, fill_columns
from tallystick.plumbing.log import CORRECTIONS, Chunk
from tallystick.plumbing.log.columns import Columns, complete, shorten
from tallystick.plumbing.log.packing import BYTES, FLOATS, TEXT, Column, Packed

_TIME = pa.timestamp("us", tz="UTC")
_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    bool: pa.bool_(),
    float | None: pa.float64(),
    bytes: pa.binary(),
}
_COORDINATES = [
    pa.field("log_partition", pa.uint16()),
    pa.field("log_offset", pa.uint64()),
    pa.field("verdict", pa.uint8()),
]


def _event_types() -> list[pa.Field]:
    hints = typing.get_type_hints(Event)
    return [
        pa.field(name, _TIME if name.endswith("_at") else _TYPES[hints[name]])
        for name in EVENT_FIELDS
    ]


def _schema(kind: str, fields: Iterable[pa.Field]) -> pa.Schema:
    metadata = {"tallystick.format": str(FORMAT), "tallystick.kind": kind}
    return pa.schema([*fields, *_COORDINATES], metadata=metadata)


EVENTS_SCHEMA = _schema("events", _event_types())
"""Every field of the event in its order, then the delivery's coordinates and verdict."""

CORRECTIONS_SCHEMA = _schema(
    "corrections", [pa.field(name, FACT_TYPES[name]) for name in CORRECTION_FIELDS]
)
"""Every field of a correction row, then its coordinates; the verdict is always 0."""


DICTIONARIES = frozenset(
    (
        *("tenant_id", "event_type", "source", "workflow", "agent", "project_id", "team"),
        *("product", "feature", "customer_tier", "environment", "provider", "model", "operation"),
        *("service_tier", "usage_scope", "usage_quality", "tool", "error_code", "reject_code"),
        *("correction_id", "cost_quality", "cost_amount", "cost_currency"),
    )
)
"""Text with few values: coded once, and written to Parquet and ClickHouse so."""


def schema_of(partition: int) -> pa.Schema:
    """The schema of a partition's objects."""
    return CORRECTIONS_SCHEMA if partition == CORRECTIONS else EVENTS_SCHEMA


def coded_schema_of(partition: int) -> pa.Schema:
    """The same with DICTIONARIES as dictionaries: what tables of it look like in memory."""
    coded = pa.dictionary(pa.int32(), pa.string())
    schema = schema_of(partition)
    fields = [field.with_type(coded) if field.name in DICTIONARIES else field for field in schema]
    return pa.schema(fields, metadata=schema.metadata)


def table_of(chunk: Chunk) -> pa.Table:
    """Turn a chunk of the log into a table, coded, in the order of its offsets."""
    schema, count = schema_of(chunk.partition), len(chunk.offsets)
    columns = chunk.columns
    if chunk.partition != CORRECTIONS:
        columns = complete(fill_columns(columns, count), DEFAULTS)
    verdicts = np.frombuffer(chunk.verdicts, np.uint8)
    coordinates: list[Any] = [[chunk.partition], _numbers(chunk.offsets), verdicts]
    arrays = [
        _array_of(column, field.type, count, is_coded=field.name in DICTIONARIES)
        for column, field in zip([*columns, *coordinates], schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=coded_schema_of(chunk.partition))


def _numbers(offsets: Sequence[int]) -> Any:
    if isinstance(offsets, range):
        return np.arange(offsets.start, offsets.stop)
    return np.asarray(offsets)


def _array_of(
    values: Column | Sequence[Any], kind: pa.DataType, count: int, *, is_coded: bool = False
) -> pa.Array:
    if isinstance(values, Packed):
        array = _packed_array(values, kind, count)
    elif len(values) > 1:
        array = pa.array(values, kind)
    elif is_coded:
        codes = pa.array(np.zeros(count, np.int32))
        return pa.DictionaryArray.from_arrays(codes, pa.array(values, kind))
    else:
        array = pa.repeat(pa.scalar(values[0], kind), count)
    return array.dictionary_encode() if is_coded else array


def _packed_array(packed: Packed, kind: pa.DataType, count: int) -> pa.Array:
    if packed.kind == TEXT:
        return _packed_text(packed.content, count).cast(kind)
    if packed.kind == BYTES:
        width = len(packed.content) // count
        return _cut(np.arange(count + 1) * width, packed.content, pa.binary()).cast(kind)
    if packed.kind == FLOATS:
        numbers = np.frombuffer(packed.content, "<f8")
        return pa.array(numbers, mask=np.isnan(numbers)).cast(kind)
    return pa.array(np.frombuffer(packed.content, "<i8")).cast(kind)


def _packed_text(data: bytes, count: int) -> pa.Array:
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0)
    begins = np.concatenate(([0], ends - np.arange(count - 1), [len(data) - count + 1]))
    return _cut(begins, data.translate(None, b"\0"), pa.string())


def _cut(begins: Any, content: bytes, kind: pa.DataType) -> pa.Array:
    buffers = [None, pa.py_buffer(begins.astype(np.int32)), pa.py_buffer(content)]
    return pa.Array.from_buffers(kind, len(begins) - 1, buffers)


_COORDINATE_NAMES = frozenset(field.name for field in _COORDINATES)


def completed(table: pa.Table, partition: int) -> pa.Table:
    """Bring a table of an older version to today's columns, as the log's reader would."""
    schema, count = schema_of(partition), table.num_rows
    missing = [field for field in schema if field.name not in table.column_names]
    if not missing:
        return table.select(schema.names)
    columns: Columns = [[None]] * len(schema)
    if partition != CORRECTIONS:
        known = [[""] if name in table.column_names else [None] for name in EVENT_FIELDS]
        if count and "attrs" in table.column_names:
            known[EVENT_FIELDS.index("attrs")] = table.column("attrs").to_pylist()
        columns[: len(EVENT_FIELDS)] = complete(fill_columns(known, count), DEFAULTS)
    for field in missing:
        column = columns[schema.get_field_index(field.name)]
        array = _array_of(column, field.type, count, is_coded=field.name in DICTIONARIES)
        table = table.append_column(field.name, array)
    return table.select(schema.names)


def columns_of(table: pa.Table, partition: int) -> Columns:
    """Turn a table back into columns of the log."""
    names = [name for name in schema_of(partition).names if name not in _COORDINATE_NAMES]
    return [shorten(_values_of(table.column(name))) for name in names]


def _values_of(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values
