"""Identifiers: time-ordered UUIDs (version 7, RFC 9562) from a source that is passed in."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from tallystick.clock import Clock


class IdSource(Protocol):
    """Makes new unique ids."""

    def next_id(self) -> UUID:
        """Return a new UUID; later ids sort after earlier ones."""
        ...


class Uuid7Source:
    """UUID version 7: 48 bits of milliseconds, then 74 random bits."""

    def __init__(self, clock: Clock, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._clock = clock
        self._random_bits = random_bits

    def next_id(self) -> UUID:
        """Return a new UUID of version 7."""
        millis = self._clock.now() // 1000
        value = (millis & (2**48 - 1)) << 80 | 0x7 << 76 | self._random_bits(12) << 64
        return UUID(int=value | 0b10 << 62 | self._random_bits(62))
