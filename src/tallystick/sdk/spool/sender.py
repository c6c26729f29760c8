"""The thread that delivers a spool: batches, backs off, adopts what the dead left.

It lingers a moment so that events travel together, sends what is pending, and when the
server is away waits longer each time (full jitter, so that a fleet does not return as one).
It ends when its owner closes it, after the last try. Nothing is removed from the spool
before the server has answered; what the server refuses for ever is counted, logged by its
code alone, and kept in `refused.ndjson` beside the spool as long as that file is small. A
disk that fails is an outage like the server's: logged, waited for, and the thread goes on.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

import msgspec

from tallystick.sdk.errors import SpoolFull, Unreachable
from tallystick.sdk.spool.files import Leftover, adopt_leftovers
from tallystick.sdk.spool.memory import Spool
from tallystick.sdk.spool.records import (
    AUTHORIZATIONS_PATH,
    UNDO_PATH,
    Fate,
    Post,
    body_of,
    decode_record,
    fate_of,
    first_batch,
)
from tallystick.sdk.transport import Answer

_log = logging.getLogger("tallystick.sdk")

_RECORDS_PER_READ = 500
_BYTES_PER_REQUEST = 1024 * 1024
_REFUSED_FILE_BYTES_MAX = 16 * 1024 * 1024
_ADOPT_EVERY_SECONDS = 30.0


class Poster(Protocol):
    """Posts to the server; Unreachable when there is no answer."""

    def post(self, path: str, body: bytes) -> Answer:
        """Post JSON and wait for the answer."""
        ...


class Counts(msgspec.Struct):
    """What became of the records of this process."""

    recorded: int = 0
    delivered: int = 0
    duplicates: int = 0
    refused: int = 0
    """By the server, for ever."""
    not_taken: int = 0
    """By the spool, because it was full: the caller was told."""
    retries: int = 0
    adopted: int = 0
    damaged_bytes: int = 0
    lost: int = 0
    """Pending in memory when the process ended."""


class Backoff:
    """How long to wait after the n-th failure: full jitter below a doubling ceiling."""

    def __init__(
        self,
        first_seconds: float = 0.1,
        ceiling_seconds: float = 30.0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first = first_seconds
        self._ceiling = ceiling_seconds
        self._jitter = jitter
        self.failures = 0

    def next_wait(self, at_least_seconds: float = 0.0) -> float:
        """Count a failure; return seconds to wait."""
        ceiling = min(self._first * 2.0 ** min(self.failures, 20), self._ceiling)
        self.failures += 1
        return max(at_least_seconds, ceiling * self._jitter())

    def reset(self) -> None:
        """The server answered."""
        self.failures = 0


class Sender:
    """Delivers one spool, and those it adopts, by one thread."""

    def __init__(
        self,
        spool: Spool,
        poster: Poster,
        *,
        folder: Path | None = None,
        backoff: Backoff | None = None,
        linger_seconds: float = 0.02,
    ) -> None:
        self.counts = Counts()
        self.late: SimpleQueue[bytes] = SimpleQueue()
        """Records of a garbage collector, which may hold any lock: taken up by the thread."""
        self._spool = spool
        self._poster = poster
        self._folder = folder
        self._backoff = backoff or Backoff()
        self._linger_seconds = linger_seconds
        self._leftovers: list[Leftover] = []
        self._adopt_at = 0.0
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._progress = threading.Condition()
        self._start_lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def start(self) -> None:
        """Begin to deliver; harmless when begun."""
        with self._start_lock:
            if self._thread is None and not self._is_closing:
                self._thread = threading.Thread(target=self._run, name="tallystick", daemon=True)
                self._thread.start()

    def notice(self) -> None:
        """Something was added."""
        if self._thread is None:
            self.start()
        if not self._wake.is_set():
            self._wake.set()

    def wait_for_room(self, timeout_seconds: float) -> None:
        """Return when something was delivered, or after the time."""
        self._urgent.set()
        self.notice()
        with self._progress:
            self._progress.wait(timeout_seconds)

    def flush(self, timeout_seconds: float) -> bool:
        """Deliver all that is pending; False when it took too long."""
        deadline = time.monotonic() + timeout_seconds
        self._backoff.reset()
        self._urgent.set()
        self.notice()
        with self._progress:
            while self._has_pending():
                left = deadline - time.monotonic()
                if left <= 0 or self._thread is None:
                    return False
                self._progress.wait(min(left, 0.05))
        return True

    def _has_pending(self) -> bool:
        has_looked = self._folder is None or self._adopt_at > 0
        here = self._spool.pending_records or not self.late.empty()
        return bool(here or self._leftovers or not has_looked)

    def close(self, timeout_seconds: float) -> None:
        """Deliver what can be within the time, then end the thread."""
        if self._thread is not None or self._has_pending():
            self.flush(timeout_seconds)
        self._is_closing = True
        self._wake.set()
        self._urgent.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds + 1)
        for leftover in self._leftovers:
            leftover.close()

    def _run(self) -> None:
        while not self._is_closing:
            wait = self._work()
            if wait is None:
                self._wake.wait(1.0)
                self._wake.clear()
                if not self._urgent.is_set() and self._spool.pending_records < _RECORDS_PER_READ:
                    self._urgent.wait(self._linger_seconds)
            else:
                self._urgent.wait(wait)
            self._urgent.clear()

    def _work(self) -> float | None:
        """Do what is to be done; return seconds to wait when the server or the disk fails."""
        try:
            self._take_late()
            self._adopt()
            wait = self._deliver()
            if wait is not None:
                self._spool.sync()  # the server is away: what waits goes to the disk
        except OSError as error:  # what is spooled stays, and the thread lives
            _log.error("the spool's disk fails: %s; what waits is tried again", error)
            return self._backoff.next_wait()
        except Exception as error:  # an answer of no shape that we know: another one's, perhaps
            _log.error(
                "an answer cannot be read: %s; what waits is tried again", type(error).__name__
            )
            return self._backoff.next_wait()
        return wait

    def _take_late(self) -> None:
        while True:
            try:
                record = self.late.get_nowait()
            except Empty:
                return
            try:
                self._spool.append(record, is_owed=True)
            except SpoolFull as full:
                self.late.put(record)
                _log.error("a settlement waits in memory: %s", full)
                return

    def _adopt(self) -> None:
        if self._folder is None or time.monotonic() < self._adopt_at:
            return
        found = adopt_leftovers(self._folder)
        self.counts.adopted += len(found)
        self._leftovers += found
        self._adopt_at = time.monotonic() + _ADOPT_EVERY_SECONDS

    def _deliver(self) -> float | None:
        """Send what is pending; return seconds to wait when the server is away."""
        try:
            while self._leftovers:
                self._drain_leftover(self._leftovers[0])
                self.counts.damaged_bytes += self._leftovers[0].damaged_bytes
                self._leftovers.pop(0).close()
            self._drain(self._spool)
        except Unreachable as away:
            self.counts.retries += 1
            return self._backoff.next_wait(away.wait_seconds)
        return None

    def _drain_leftover(self, leftover: Leftover) -> None:
        try:
            self._drain(leftover)
        except OSError as error:  # it stays on disk and is adopted again; ours goes on
            _log.error("what a dead process left cannot be delivered now: %s", error)

    def _drain(self, source: Spool | Leftover) -> None:
        limit = _RECORDS_PER_READ
        while not self._is_closing:
            records = source.read(limit)
            if not records:
                return
            batch = first_batch([decode_record(one) for one in records], _BYTES_PER_REQUEST)
            answer = self._post(batch)
            self._backoff.reset()
            fate = fate_of(answer.status, len(batch))
            if fate is Fate.KEEP:
                _log.warning("the server answered %d; events wait", answer.status)
                raise Unreachable(
                    "refused for now",
                    may_have_arrived=False,
                    retry_after_seconds=answer.retry_after_seconds,
                )
            if fate is Fate.SPLIT:
                limit = max(len(batch) // 2, 1)
                continue
            limit = min(limit * 2, _RECORDS_PER_READ)
            self._count(batch, answer, fate)
            source.advance(len(batch))
            with self._progress:
                self._progress.notify_all()

    def _post(self, batch: list[Post]) -> Answer:
        if batch[0].path != UNDO_PATH:
            return self._poster.post(batch[0].path, body_of(batch))
        found = self._poster.post(AUTHORIZATIONS_PATH, batch[0].body)
        if found.status == 402:
            return Answer(200, {})  # declined: nothing is set aside
        if found.status >= 300:
            return found
        name = str(found.content.get("authorization_id", ""))
        body = msgspec.json.encode({"idempotency_key": f"undo-{name}"})
        return self._poster.post(f"{AUTHORIZATIONS_PATH}/{name}/cancel", body)

    def _count(self, batch: list[Post], answer: Answer, fate: Fate) -> None:
        if fate is Fate.REFUSED:
            self._keep_refused(batch, str(answer.content.get("code", answer.status)))
            return
        refused = answer.content.get("rejected") or []
        for one in refused:
            index = one.get("index", 0) if isinstance(one, dict) else 0
            self._keep_refused([batch[index]], str(one.get("code", "")))
        self.counts.duplicates += int(answer.content.get("duplicates") or 0)
        self.counts.delivered += len(batch) - len(refused)

    def _keep_refused(self, posts: list[Post], code: str) -> None:
        self.counts.refused += len(posts)
        _log.error("the server refused %d record(s): %s", len(posts), code)
        if self._folder is None:
            return
        lines = [
            msgspec.json.encode({"code": code, "path": one.path, "body": msgspec.Raw(one.body)})
            for one in posts
        ]
        try:
            _keep_lines(self._folder / "refused.ndjson", lines)
        except OSError as error:  # good records wait behind them: go on
            _log.error("%d refused record(s) could not be kept aside: %s", len(posts), error)


def _keep_lines(path: Path, lines: list[bytes]) -> None:
    if path.exists() and path.stat().st_size > _REFUSED_FILE_BYTES_MAX:
        return
    with path.open("ab") as kept:
        kept.writelines(line + b"\n" for line in lines)
