"""Parquet objects of one flush: deliveries of one partition, cut by hour of receipt.

Each object is written as it grows, so that what waits in memory is compressed but for its last
row group. Text with few values gets dictionaries; ids, which do not repeat, do not try.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tallystick.archive.columns import coded_schema_of, schema_of
from tallystick.archive.model import FORMAT, ArchivedObject, Manifest, hour_of, object_name
from tallystick.clock import HOUR, format_time
from tallystick.plumbing.objects import digest_of

ROW_GROUP_ROWS = 100_000
"""One step of a restore; large enough for dictionaries, small enough for memory."""

_LEVEL = 3  # level 1 is 8% larger and hardly faster; level 6 is 3% smaller at twice the time
_UNIQUE = frozenset(
    ("event_id", "content_digest", "request_id", "tool_call_id", "idempotency_key", "log_offset")
)


class SealedObject(NamedTuple):
    """An object ready to be stored, and what the manifest says of it."""

    content: bytes
    entry: ArchivedObject


class _HourWriter:
    """One object as it grows."""

    def __init__(self, partition: int, hour: str) -> None:
        self._partition = partition
        self._hour = hour
        schema = coded_schema_of(partition)
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(
            self._sink,
            schema,
            store_schema=False,  # that dictionaries are how it was written is nobody's business
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=[name for name in schema.names if name not in _UNIQUE],
            column_encoding={"log_offset": "DELTA_BINARY_PACKED"},
            write_statistics=["log_offset", "received_at", "occurred_at"],
            sorting_columns=[pq.SortingColumn(schema.get_field_index("log_offset"))],
        )
        self._writer.add_key_value_metadata(schema.metadata)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._rows = 0
        self._first = -1
        self._last = -1

    def add(self, table: pa.Table) -> None:
        """Take rows that follow those before."""
        offsets = table.column("log_offset")
        if self._first < 0:
            self._first = offsets[0].as_py()
        self._last = offsets[-1].as_py()
        self._waiting.append(table)
        self._waiting_rows += table.num_rows
        self._rows += table.num_rows
        if self._waiting_rows >= ROW_GROUP_ROWS:
            self._write_group()

    def _write_group(self) -> None:
        whole = pa.concat_tables(self._waiting).unify_dictionaries().combine_chunks()
        self._writer.write_table(whole, row_group_size=ROW_GROUP_ROWS)
        self._waiting, self._waiting_rows = [], 0

    def seal(self) -> SealedObject:
        """Finish the object."""
        if self._waiting:
            self._write_group()
        self._writer.close()
        content = self._sink.getvalue()
        sha256 = digest_of(content)
        name = object_name(self._partition, self._hour, self._first, self._last, sha256)
        entry = ArchivedObject(
            name, sha256, len(content), self._rows, self._first, self._last, self._hour
        )
        return SealedObject(content, entry)


class PartitionBuffer:
    """What waits to be archived of one partition, from where its chain ends."""

    def __init__(self, partition: int, offset_start: int) -> None:
        self.partition = partition
        self.offset_start = offset_start
        self.offset_end = offset_start
        self.rows = 0
        self._hours: dict[str, _HourWriter] = {}

    def add(self, table: pa.Table, offset_end: int) -> None:
        """Take the deliveries up to `offset_end`; `table` has those there are, in order."""
        self.offset_end = offset_end
        self.rows += table.num_rows
        if not table.num_rows:
            return
        hours = table.column("received_at").cast(pa.int64()).to_numpy() // HOUR
        hours = np.where(hours, hours, hours.max())  # markers of transactions have no time
        for hour in np.unique(hours):
            mask = hours == hour
            name = hour_of(int(hour) * HOUR)
            if name not in self._hours:
                self._hours[name] = _HourWriter(self.partition, name)
            self._hours[name].add(table if mask.all() else table.filter(pa.array(mask)))

    def seal(self, previous: str, now: int) -> tuple[list[SealedObject], Manifest]:
        """Finish the objects and say what they are; the buffer is spent then."""
        sealed = [self._hours[hour].seal() for hour in sorted(self._hours)]
        manifest = Manifest(
            format=FORMAT,
            partition=self.partition,
            offset_start=self.offset_start,
            offset_end=self.offset_end,
            rows=self.rows,
            objects=[one.entry for one in sealed],
            fields=schema_of(self.partition).names,
            previous=previous,
            written_at=format_time(now),
        )
        return sealed, manifest
