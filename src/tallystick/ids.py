"""Identifiers: time-ordered UUIDs (version 7, RFC 9562) from a source that is passed in."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Protocol

from tallystick.clock import Clock


class IdSource(Protocol):
    """Makes new unique ids."""

    def next_id(self) -> str:
        """Return a new UUID as text; later ids sort after earlier ones."""
        ...


class Uuid7Source:
    """UUID version 7: 48 bits of milliseconds, then 74 random bits.

    Ids of one source grow, also within a millisecond and when the clock steps back.
    """

    def __init__(self, clock: Clock, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._clock = clock
        self._random_bits = random_bits
        self._last = 0
        self._lock = threading.Lock()

    def next_id(self) -> str:
        """Return a new UUID of version 7 as text."""
        millis = self._clock.now() // 1000
        random = self._random_bits(74)
        value = (millis & (2**48 - 1)) << 80 | 0x7 << 76 | (random >> 62) << 64
        value |= 0b10 << 62 | random & (2**62 - 1)
        with self._lock:
            self._last = value = max(value, self._last + 1)
        return uuid_text(f"{value:032x}")


def uuid_text(digits: str) -> str:
    """Write 32 hexadecimal digits as a UUID, without the cost of an object.

    >>> uuid_text("0190a1b2c3d47e5f8a9b0c1d2e3f4a5b")
    '0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b'
    """
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
