"""Segments of a spool on disk: one folder for each process, adopted when it is dead.

    spool/
      <writer>/lock              held (flock) as long as the writer lives
      <writer>/000001.seg ...    frames, appended by one write each; read in order, then removed

A record is in the hands of the operating system before `append` returns: it survives the
death of the process at any moment, and with `fsync="always"` that of the machine. A writer
prepares its folder under a name that begins with a dot and renames it once it holds the
lock, so that nobody adopts a folder that is being made. The lock belongs to the open file,
which a forked child must close (`abandon`) and a killed process closes by dying.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import threading
from collections import deque
from pathlib import Path
from typing import Literal

from tallystick.sdk.errors import SpoolFull
from tallystick.sdk.spool.frames import PAYLOAD_BYTES_MAX, frame, scan

_log = logging.getLogger("tallystick.sdk")

SEGMENT_BYTES = 1024 * 1024
Fsync = Literal["always", "group", "never"]


class FileSpool:
    """The spool of one process."""

    def __init__(
        self,
        folder: Path,
        bytes_max: int,
        *,
        fsync: Fsync = "group",
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._bytes_max = bytes_max
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._serial = 0
        self._sizes: dict[int, int] = {}
        self._lengths: deque[int] = deque()
        self._read_offset = 0
        self._is_dirty = False
        self._is_open = True
        """Once closed, its descriptors' numbers belong to other files of the application."""
        self.pending_records = 0
        self.pending_bytes = 0
        self.writer = secrets.token_hex(8)
        self.folder, self._lock_file = _claim(folder, self.writer)
        self._segment = self._new_segment()

    def _path(self, serial: int) -> Path:
        return self.folder / f"{serial:06d}.seg"

    def _new_segment(self) -> int:
        """Open the next segment; it is one of ours only once it is there."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND
        segment = os.open(self._path(self._serial + 1), flags, 0o600)
        self._serial += 1
        self._sizes[self._serial] = 0
        return segment

    def append(self, record: bytes, *, is_owed: bool = False) -> None:
        """Add a record; SpoolFull over the bound, unless its work has happened."""
        if not 0 < len(record) <= PAYLOAD_BYTES_MAX:
            raise SpoolFull("a record is empty or larger than a frame may be")
        framed = frame(record)
        with self._lock:
            if not self._is_open:
                raise SpoolFull("the spool is closed; nothing was taken")
            if self.pending_bytes + len(framed) > self._bytes_max and not is_owed:
                raise SpoolFull("too much waits for the server; nothing was taken")
            if self._sizes[self._serial] >= self._segment_bytes:
                self._rotate()
            self._write(framed)
            self._lengths.append(len(framed))
            self.pending_records += 1
            self.pending_bytes += len(framed)

    def _rotate(self) -> None:
        """Begin the next segment; until it is open the old one stays in use.

        A descriptor that is closed first would, when the next cannot be opened, be given to
        the next file of the application, and frames would be written into that.
        """
        before = self._segment
        try:
            self._flush()
            self._segment = self._new_segment()
        except OSError as error:
            raise SpoolFull(f"the spool cannot be written: {error.strerror}") from error
        os.close(before)

    def _write(self, framed: bytes) -> None:
        """One write; half of one (a full disk) is taken back."""
        size = self._sizes[self._serial]
        try:
            written = os.write(self._segment, framed)
            if written == len(framed) and self._fsync == "always":
                os.fsync(self._segment)
        except OSError as error:
            os.ftruncate(self._segment, size)
            raise SpoolFull(f"the spool cannot be written: {error.strerror}") from error
        if written != len(framed):
            os.ftruncate(self._segment, size)
            raise SpoolFull("the spool cannot be written: the disk is full")
        self._sizes[self._serial] = size + written
        self._is_dirty = True

    def read(self, count_max: int) -> list[bytes]:
        """The oldest records of one segment, which stay until `advance`."""
        with self._lock:
            if not (self._is_open and self.pending_records):
                return []
            serial = next(iter(self._sizes))
            path, offset, size = self._path(serial), self._read_offset, self._sizes[serial]
        with path.open("rb") as segment:
            segment.seek(offset)
            return scan(segment.read(size - offset), count_max).payloads

    def advance(self, count: int) -> None:
        """Remove the oldest `count` records, which are of one segment; none once closed."""
        with self._lock:
            if not self._is_open:
                return
            sent = sum(self._lengths.popleft() for _ in range(count))
            self.pending_records -= count
            self.pending_bytes -= sent
            self._read_offset += sent
            serial = next(iter(self._sizes))
            if self._read_offset < self._sizes[serial]:
                return
            if serial == self._serial:  # all is sent: begin the segment again
                os.ftruncate(self._segment, 0)
                self._sizes[serial] = 0
                self._read_offset = 0
                self._is_dirty = False
            else:
                del self._sizes[serial]
                self._read_offset = 0
                self._path(serial).unlink(missing_ok=True)

    def sync(self) -> None:
        """Flush to the disk what waits, by policy."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._is_open and self._is_dirty and self._fsync != "never":
            os.fsync(self._segment)
            self._is_dirty = False

    def close(self) -> None:
        """Flush; an empty folder goes, another is left for who comes next."""
        with self._lock:
            self._flush()
            self._is_open = False
            os.close(self._segment)
            if not self.pending_records:
                shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._lock_file)

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without a word to it."""
        self._is_open = False
        os.close(self._segment)
        os.close(self._lock_file)


def _claim(folder: Path, writer: str) -> tuple[Path, int]:
    """Make a writer's folder and hold its lock before anybody else can see it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    hidden = folder / f".{writer}"
    hidden.mkdir(mode=0o700)
    lock_file = os.open(hidden / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    hidden.rename(folder / writer)
    return folder / writer, lock_file


class Leftover:
    """The spool of a dead process, delivered by who adopted it."""

    def __init__(self, folder: Path, lock_file: int) -> None:
        self._folder = folder
        self._lock_file = lock_file
        self._segments = deque(sorted(folder.glob("*.seg")))
        self._records: deque[bytes] = deque()
        self.damaged_bytes = 0

    @property
    def pending_records(self) -> int:
        """At least this many wait."""
        return len(self._records) + len(self._segments)

    def read(self, count_max: int) -> list[bytes]:
        """The oldest records of one segment; none when all are delivered."""
        while not self._records and self._segments:
            self._load(self._segments[0])
            if not self._records:
                self._segments.popleft().unlink(missing_ok=True)
        return [self._records[index] for index in range(min(count_max, len(self._records)))]

    def _load(self, path: Path) -> None:
        content = path.read_bytes()
        found = scan(content)
        if found.rest == "damaged":  # kept first: the segment goes once its records are sent
            path.with_suffix(".damaged").write_bytes(content[found.end :])
            self.damaged_bytes += len(content) - found.end
        self._records.extend(found.payloads)

    def advance(self, count: int) -> None:
        """Forget the oldest `count` records; a segment that is delivered is removed."""
        for _ in range(count):
            self._records.popleft()
        if not self._records:
            self._segments.popleft().unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folder when all is delivered, and let go of it."""
        if not self._segments and not list(self._folder.glob("*.damaged")):
            shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock_file)


def adopt_leftovers(folder: Path) -> list[Leftover]:
    """Take over the folders of writers that are dead, oldest first; others stay theirs."""
    found = []
    for lock in sorted(folder.glob("[!.]*/lock"), key=_changed_at):
        try:
            lock_file = os.open(lock, os.O_RDWR)
        except FileNotFoundError:
            continue  # its owner ended meanwhile
        except OSError as error:
            _log.warning("what waits in %s cannot be taken over: %s", lock.parent, error.strerror)
            continue
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_there = lock.exists() and os.fstat(lock_file).st_nlink > 0
        except OSError:
            is_there = False
        if is_there and any(lock.parent.glob("*.seg")):
            found.append(Leftover(lock.parent, lock_file))
        else:
            if is_there and not any(lock.parent.glob("*.damaged")):
                shutil.rmtree(lock.parent, ignore_errors=True)
            os.close(lock_file)
    return found


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
