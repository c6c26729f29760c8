"""Frames of a spool's segment: length, CRC-32, payload. Pure.

A process may die at any byte. What `scan` calls *torn* is a last frame that was cut short,
or zeros that a file system left after a power loss: it was never acknowledged and is
ignored. Bytes that are complete but do not match their sum are *damaged*: they are kept
aside and counted, because somebody has to know.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple
from zlib import crc32

_HEADER = struct.Struct("<II")
HEADER_BYTES = _HEADER.size
PAYLOAD_BYTES_MAX = 4 * 1024 * 1024


class Scan(NamedTuple):
    """What a stretch of a segment holds."""

    payloads: list[bytes]
    end: int
    """Offset after the last good frame."""
    rest: Literal["none", "torn", "damaged"]


def frame(payload: bytes) -> bytes:
    """Write one frame.

    >>> scan(frame(b"one") + frame(b"two")[:-1]).payloads
    [b'one']
    """
    return _HEADER.pack(len(payload), crc32(payload)) + payload


def scan(content: bytes, count_max: int = 2**31) -> Scan:
    """Read up to `count_max` good frames from the start, up to the first that is none."""
    payloads: list[bytes] = []
    start = 0
    while start + HEADER_BYTES <= len(content):
        if len(payloads) == count_max:
            return Scan(payloads, start, "none")
        length, checksum = _HEADER.unpack_from(content, start)
        end = start + HEADER_BYTES + length
        payload = content[start + HEADER_BYTES : end]
        if not 0 < length <= PAYLOAD_BYTES_MAX:
            return Scan(payloads, start, "damaged" if any(content[start:]) else "torn")
        if end > len(content):
            return Scan(payloads, start, "torn")
        if crc32(payload) != checksum:
            return Scan(payloads, start, "damaged" if any(payload) else "torn")
        payloads.append(payload)
        start = end
    return Scan(payloads, start, "torn" if start < len(content) else "none")
