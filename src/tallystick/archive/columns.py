"""Deliveries as typed columns: from rows of the log to Arrow tables, and back.

Rows are turned block by block: a block that fits the processor's cache transposes several
times faster than a whole step, and a field that is the same throughout travels once. Objects
of an older version have fewer columns; what they lack reads as the event's own default.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from tallystick.analytics.facts import CORRECTION_FIELDS, FACT_TYPES
from tallystick.archive.model import FORMAT
from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.plumbing.log import CORRECTIONS, Chunk

BLOCK_ROWS = 2_000
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
_DEFAULT_EVENT = Event(event_id="", event_type="", occurred_at=0, received_at=0, tenant_id="")
_EVENT_DEFAULTS = {name: getattr(_DEFAULT_EVENT, name) for name in EVENT_FIELDS}
_ROW_DEFAULTS = [msgspec.to_builtins(_EVENT_DEFAULTS[name]) for name in EVENT_FIELDS]


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


def schema_of(partition: int) -> pa.Schema:
    """The schema of a partition's objects."""
    return CORRECTIONS_SCHEMA if partition == CORRECTIONS else EVENTS_SCHEMA


def table_of(chunk: Chunk) -> pa.Table:
    """Turn a chunk of the log into a table, in the order of its offsets."""
    schema = schema_of(chunk.partition)
    fields = [field for field in schema if field.name not in _COORDINATE_NAMES]
    batches = [
        pa.RecordBatch.from_arrays(
            _arrays_of(chunk.rows[start : start + BLOCK_ROWS], fields), schema=pa.schema(fields)
        )
        for start in range(0, len(chunk.rows), BLOCK_ROWS)
    ]
    table = pa.Table.from_batches(batches, schema=pa.schema(fields))
    coordinates = (
        pa.repeat(pa.scalar(chunk.partition, pa.uint16()), len(chunk.rows)),
        pa.array(chunk.offsets, pa.uint64()),
        pa.array(memoryview(chunk.verdicts), pa.uint8()),
    )
    for field, column in zip(_COORDINATES, coordinates, strict=True):
        table = table.append_column(field, column)
    return (
        table.cast(schema)
        if table.schema != schema
        else table.replace_schema_metadata(schema.metadata)
    )


_COORDINATE_NAMES = frozenset(field.name for field in _COORDINATES)


def _arrays_of(rows: Sequence[list[Any]], fields: Sequence[pa.Field]) -> list[pa.Array]:
    if any(len(row) < len(fields) for row in rows):  # written by an older version
        rows = [row + _ROW_DEFAULTS[len(row) :] for row in rows]
    return [
        _array_of(column, field.type)
        for column, field in zip(zip(*rows, strict=True), fields, strict=False)
    ]


def _array_of(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    if kind != pa.float64() and values.count(values[0]) == len(values):
        return pa.repeat(pa.scalar(values[0], kind), len(values))
    return pa.array(values, kind)


def completed(table: pa.Table, partition: int) -> pa.Table:
    """Bring a table of an older version to today's columns."""
    schema = schema_of(partition)
    missing = [field for field in schema if field.name not in table.column_names]
    for field in missing:
        default = _EVENT_DEFAULTS.get(field.name)
        column = pa.repeat(pa.scalar(default, field.type), table.num_rows)
        table = table.append_column(field, column)
    return table.select(schema.names)


def rows_of(table: pa.Table, partition: int) -> list[list[Any]]:
    """Turn a table back into rows of the log."""
    names = [name for name in schema_of(partition).names if name not in _COORDINATE_NAMES]
    columns = [_values_of(table.column(name)) for name in names]
    return [list(row) for row in zip(*columns, strict=True)]


def _values_of(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values
