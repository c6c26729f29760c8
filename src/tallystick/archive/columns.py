"""Deliveries as typed columns: from columns of the log to Arrow tables, and back.

Batches and objects of an older version have fewer columns; what they lack is filled as every
reader of the log fills it: a promoted field from attrs, any other by the event's default.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from tallystick.analytics.facts import CORRECTION_FIELDS, FACT_TYPES
from tallystick.archive.model import FORMAT
from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.events.promotion import DEFAULTS, fill_columns
from tallystick.plumbing.log import CORRECTIONS, Chunk
from tallystick.plumbing.log.columns import Columns, complete, shorten

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


def schema_of(partition: int) -> pa.Schema:
    """The schema of a partition's objects."""
    return CORRECTIONS_SCHEMA if partition == CORRECTIONS else EVENTS_SCHEMA


def table_of(chunk: Chunk) -> pa.Table:
    """Turn a chunk of the log into a table, in the order of its offsets."""
    schema, count = schema_of(chunk.partition), len(chunk.offsets)
    columns = chunk.columns
    if chunk.partition != CORRECTIONS:
        columns = complete(fill_columns(columns, count), DEFAULTS)
    coordinates: list[Any] = [[chunk.partition], chunk.offsets, memoryview(chunk.verdicts)]
    arrays = [
        _array_of(column, field.type, count)
        for column, field in zip([*columns, *coordinates], schema, strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _array_of(values: Sequence[Any], kind: pa.DataType, count: int) -> pa.Array:
    if len(values) == 1:
        return pa.repeat(pa.scalar(values[0], kind), count)
    return pa.array(values, kind)


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
        table = table.append_column(field, _array_of(column, field.type, count))
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
