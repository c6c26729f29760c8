"""What a spool is, and the one that lives in memory: lost with the process, never silently."""

from __future__ import annotations

import threading
from collections import deque
from itertools import islice
from typing import Protocol

from tallystick.sdk.errors import SpoolFull


class Spool(Protocol):
    """A queue of records; one reader, many writers."""

    pending_records: int
    pending_bytes: int

    def append(self, record: bytes, *, is_owed: bool = False) -> None:
        """Add a record; SpoolFull over the bound, unless `is_owed`: its work has happened."""
        ...

    def read(self, count_max: int) -> list[bytes]:
        """The oldest records, which stay until `advance`."""
        ...

    def advance(self, count: int) -> None:
        """Remove the oldest `count` records: the server has them."""
        ...

    def sync(self) -> None:
        """Flush to the disk what was written to it."""
        ...

    def close(self) -> None:
        """End; what is pending stays where it is, if that is a disk."""
        ...


class MemorySpool:
    """A bounded queue in memory."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._records: deque[bytes] = deque()
        self.pending_records = 0
        self.pending_bytes = 0

    def append(self, record: bytes, *, is_owed: bool = False) -> None:
        """Add a record; SpoolFull over the bound, unless its work has happened."""
        with self._lock:
            if self.pending_bytes + len(record) > self._bytes_max and not is_owed:
                raise SpoolFull("too much waits for the server; nothing was taken")
            self._records.append(record)
            self.pending_records += 1
            self.pending_bytes += len(record)

    def read(self, count_max: int) -> list[bytes]:
        """The oldest records, which stay until `advance`."""
        with self._lock:
            return list(islice(self._records, count_max))

    def advance(self, count: int) -> None:
        """Remove the oldest `count` records."""
        with self._lock:
            for _ in range(count):
                self.pending_bytes -= len(self._records.popleft())
                self.pending_records -= 1

    def sync(self) -> None:
        """Nothing: memory has no disk."""

    def close(self) -> None:
        """Nothing: what is pending is lost, and its owner counts it."""
