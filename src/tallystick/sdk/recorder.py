"""The client's lasting part: settings, the spool and its sender; what events pass through.

One `Recorder` serves synchronous and asynchronous code: to record is to append to the spool,
which takes microseconds and never waits for the network. It survives a fork (the child gets
a spool, a thread and connections of its own) and ends with the process, or with the worker of
`multiprocessing` (bounded).
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from tallystick.clock import Clock, SystemClock
from tallystick.ids import IdSource, Uuid7Source
from tallystick.sdk.context import plain_text
from tallystick.sdk.errors import SpoolFull
from tallystick.sdk.spool import FileSpool, MemorySpool
from tallystick.sdk.spool.files import Fsync
from tallystick.sdk.spool.records import EVENTS_PATH, encode_record
from tallystick.sdk.spool.sender import Backoff, Counts, Sender
from tallystick.sdk.transport import AsyncHttpTransport, HttpTransport
from tallystick.sdk.work import Event

_log = logging.getLogger("tallystick.sdk")
_LOADED_WITH_A_REQUEST = ("httpx", "httpcore", "encodings.idna", "importlib.readers", "zipfile")
_LAST = -100
"""After queues have given up what they hold, and children were waited for."""

OnUnreachable = Literal["spool", "refuse"]
OnFull = Literal["raise", "block"]


class Settings(NamedTuple):
    """How a client behaves."""

    url: str
    key: str
    account_id: str
    tenant_id: str
    source: str
    attribution: Mapping[str, str]
    spool: Path | None
    spool_bytes_max: int
    fsync: Fsync
    on_unreachable: OnUnreachable
    on_full: OnFull
    block_seconds: float
    timeout_seconds: float
    exit_seconds: float
    ttl_seconds: int


class Unfinished(Protocol):
    """An answer that is being read; its call is settled when it is over."""

    def abandon(self) -> None:
        """Settle it as far as it came: the process ends."""
        ...

    def disown(self) -> None:
        """Leave it to the parent of a fork."""
        ...


class Recorder:
    """Takes events and owed requests, and sees to it that they arrive."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        # whole before any thread of ours starts: clients of providers look for it among the
        # loaded modules, and would find half of one that another thread is loading; so would
        # the child of a fork, for ever
        for name in _LOADED_WITH_A_REQUEST:
            importlib.import_module(name)
        self.settings = settings
        self.clock = clock or SystemClock()
        self.ids = ids or Uuid7Source(self.clock)
        self._backoff = backoff
        self._is_closed = False
        self.unfinished: weakref.WeakSet[Unfinished] = weakref.WeakSet()
        self._open()
        _open_recorders.add(self)
        _close_all_with_worker()

    def _open(self) -> None:
        settings = self.settings
        self.transport = HttpTransport(settings.url, settings.key, settings.timeout_seconds)
        self.async_transport = AsyncHttpTransport(
            settings.url, settings.key, settings.timeout_seconds
        )
        self._spool: FileSpool | MemorySpool
        if settings.spool is None:
            self._spool = MemorySpool(settings.spool_bytes_max)
        else:
            self._spool = FileSpool(settings.spool, settings.spool_bytes_max, fsync=settings.fsync)
        # the thread has connections of its own: a slow batch does not delay a call
        self._sending = HttpTransport(settings.url, settings.key, max(settings.timeout_seconds, 30))
        self.sender = Sender(
            self._spool, self._sending, folder=settings.spool, backoff=self._backoff
        )
        if settings.spool is not None:
            self.sender.start()  # what the dead left is delivered, whatever this process does

    def record(self, event: Event) -> None:
        """Take one event; SpoolFull when the spool is full (and stays so, when blocking)."""
        if self.settings.tenant_id:
            event["tenant_id"] = self.settings.tenant_id
        if self.settings.source:
            event["source"] = self.settings.source
        self.owe(EVENTS_PATH, event, is_owed=False)

    def owe(self, path: str, content: Any, *, is_owed: bool = True) -> None:
        """Take one request for the server; `is_owed` when its work has happened."""
        record = encode_record(path, content)
        try:
            self._append(record, is_owed)
        except SpoolFull:
            self.sender.counts.not_taken += 1
            raise
        self.sender.counts.recorded += 1
        self.sender.notice()

    def owe_late(self, path: str, content: Any) -> None:
        """Take one request from a garbage collector: no lock, no file, no network."""
        self.sender.late.put(encode_record(path, content))

    def _append(self, record: bytes, is_owed: bool) -> None:
        if self.settings.on_full == "raise":
            self._spool.append(record, is_owed=is_owed)
            return
        deadline = time.monotonic() + self.settings.block_seconds
        while True:
            try:
                return self._spool.append(record, is_owed=is_owed)
            except SpoolFull:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
                self.sender.wait_for_room(min(left, 0.1))

    def flush(self, timeout: float = 10.0) -> bool:
        """Deliver all that is pending; False when `timeout` seconds were not enough."""
        return self.sender.flush(timeout)

    def counters(self) -> dict[str, int]:
        """What became of the events so far, and what is pending."""
        counts = {name: getattr(self.sender.counts, name) for name in _COUNT_NAMES}
        pending = self._spool.pending_records + self.sender.late.qsize()
        return counts | {
            "pending_records": pending,
            "pending_bytes": self._spool.pending_bytes,
        }

    @property
    def has_room(self) -> bool:
        """Whether a call that is not authorized could still be spooled."""
        return self._spool.pending_bytes < self.settings.spool_bytes_max

    def close(self, timeout: float = 10.0) -> None:
        """Deliver what can be, and end; what a spool on disk holds waits for the next."""
        if self._is_closed:
            return
        self._is_closed = True
        _open_recorders.discard(self)
        self.sender.close(timeout)
        left = self.sender.late.qsize()
        if self.settings.spool is None:
            left += self._spool.pending_records
        if left:
            self.sender.counts.lost += left
            _log.error("%d event(s) could not be delivered and are lost; give a spool", left)
        self._spool.close()
        self.transport.close()
        self._sending.close()

    def restart_in_child(self) -> None:
        """After a fork: the parent's spool, thread and connections are not ours."""
        for answer in list(self.unfinished):
            answer.disown()
        self.unfinished.clear()
        if isinstance(self._spool, FileSpool):
            self._spool.abandon()
        self.ids = Uuid7Source(self.clock)
        self._open()


_COUNT_NAMES = Counts.__struct_fields__

_open_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _restart_all_in_child() -> None:
    for recorder in list(_open_recorders):
        recorder.restart_in_child()
    _close_all_with_worker()


def _close_all_at_exit() -> None:
    for recorder in list(_open_recorders):
        for answer in list(recorder.unfinished):
            answer.abandon()
        recorder.close(recorder.settings.exit_seconds)


def _close_all_with_worker() -> None:
    """Close at the end of a worker of `multiprocessing` too, which runs no `atexit`.

    It has a list of its own of what is to be done then, emptied where a worker begins; what is
    registered "after fork" is called thereafter, also in workers that were spawned.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        _finalize_by(_close_all_at_exit)
        util.register_after_fork(_close_all_at_exit, _finalize_by)


def _finalize_by(close: Callable[[], None]) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, close, exitpriority=_LAST)


def clean_attribution(attribution: Mapping[str, Any] | None) -> dict[str, str]:
    """Dimensions as text; what is empty is left out."""
    found = {name: plain_text(value) for name, value in (attribution or {}).items() if value}
    return {name: value for name, value in found.items() if value}


atexit.register(_close_all_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restart_all_in_child)
