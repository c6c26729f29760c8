"""What the log holds, and what a follower reads of it.

A batch of the log in PostgreSQL has encoded events and one verdict byte for each:
payload = zstd( msgpack [ columns, verdicts ] ), see `packing` for what a column is.
Whatever the log is, a follower reads chunks: deliveries of one partition, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import msgspec
import psycopg
import zstandard

from tallystick.plumbing.log.columns import Columns, rows_of_columns
from tallystick.plumbing.log.packing import Column, Packed, pack, unpack_all

CORRECTIONS = 32_767
"""The partition that holds corrections of facts; it is in PostgreSQL whatever the log is."""


class Verdict(IntEnum):
    """What deduplication said of one delivery."""

    ORIGINAL = 0
    DUPLICATE = 1
    CONFLICT = 2
    CONTROL = 3
    """No delivery at all: an offset that a transaction's marker takes up (Kafka only)."""
    EXPIRED = 4
    """Never in the log: what a sink finds of a time that had expired where the log goes on."""


class LogBatch(msgspec.Struct):
    """A batch as read: event `i` has offset `offset_start + i`."""

    partition: int
    offset_start: int
    event_count: int
    received_at: int
    payload: bytes

    @property
    def offset_end(self) -> int:
        """The offset after the last event."""
        return self.offset_start + self.event_count


class Chunk(NamedTuple):
    """Deliveries of one partition, in order; offsets ascend and may have gaps."""

    partition: int
    epoch: int
    """Changes whenever the partition is taken up anew: what is known of it must be read back."""
    offsets: Sequence[int]
    columns: Sequence[Column]
    """Events as columns; the log does not know the names of their fields."""
    verdicts: bytes
    offset_end: int
    """The position after this chunk."""

    @property
    def rows(self) -> list[list[Any]]:
        """Events as rows."""
        return rows_of_columns(self.values, len(self.offsets))

    @property
    def values(self) -> Columns:
        """Events as columns of values, none of them packed."""
        return unpack_all(self.columns, len(self.offsets))


class Source(Protocol):
    """What one follower reads: each of its partitions from the stored position on."""

    def read(self, events_max: int) -> list[Chunk]:
        """Return what comes next, at most one chunk a partition; [] when there is no more."""
        ...

    def confirm(self, connection: psycopg.Connection[Any], partitions: Sequence[int]) -> None:
        """Raise LeaseLost, in the transaction that moves positions, when others read now."""
        ...

    def rewind(self) -> None:
        """Begin again at the stored positions, with new epochs."""
        ...

    def close(self) -> None:
        """Let the partitions go."""
        ...


_LEVEL = 1  # the log is written once and read a few times: speed over the last percent
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(
    tuple[list[Any], bytes], ext_hook=lambda kind, content: Packed(kind, bytes(content))
)


def encode_payload(columns: Columns, verdicts: bytes) -> bytes:
    """Pack events (as columns) and their verdicts."""
    packed = [
        one if isinstance(one, list) else msgspec.msgpack.Ext(*one) for one in map(pack, columns)
    ]
    return zstandard.ZstdCompressor(level=_LEVEL).compress(_encoder.encode([packed, verdicts]))


def decode_packed(payload: bytes) -> tuple[list[Column], bytes]:
    """Take out columns, packed as they are, and verdicts."""
    return _decoder.decode(zstandard.ZstdDecompressor().decompress(payload))


def decode_payload(payload: bytes) -> tuple[Columns, bytes]:
    """Unpack columns and verdicts."""
    columns, verdicts = decode_packed(payload)
    return unpack_all(columns, len(verdicts)), verdicts
