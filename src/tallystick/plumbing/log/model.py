"""What a log batch holds: encoded events and one verdict byte for each.

Payload = zstd( msgpack [ [event, ...], verdicts ] ); an event is itself a msgpack array.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec
import zstandard


class Verdict(IntEnum):
    """What deduplication said of one delivery."""

    ORIGINAL = 0
    DUPLICATE = 1
    CONFLICT = 2


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


_LEVEL = 1  # the log is written once and read a few times: speed over the last percent
_encoder = msgspec.msgpack.Encoder()


def encode_payload(events: list[Any], verdicts: bytes) -> bytes:
    """Pack events (structs or arrays) and their verdicts."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(_encoder.encode([events, verdicts]))


def decode_payload(payload: bytes, decoder: msgspec.msgpack.Decoder[Any]) -> Any:
    """Unpack with a decoder for `tuple[list[...], bytes]`."""
    return decoder.decode(zstandard.ZstdDecompressor().decompress(payload))
