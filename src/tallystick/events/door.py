"""The door: takes a request body, answers with a receipt once everything is durable.

One thread reads bodies and appends their events: handing each request from thread to thread
cost more than reading it. Requests that arrive while an append is under way form the next
append: one transaction, one flush to disk for all of them. The queue is bounded; a full one
pushes back (SlowDown) before anything is stored. Broken messages are appended too, as
`data.import.error`, so that they are counted and can be explained; their content is only hashed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import msgspec

from tallystick.clock import Clock
from tallystick.errors import SlowDown, StoreUnavailable, TallystickError
from tallystick.events.adapters import ParsedBody, Rejection, parse_body
from tallystick.events.appending import Appender
from tallystick.events.batch import batch_of, identities_of, join_batches
from tallystick.events.model import Event
from tallystick.events.redaction import Redactor
from tallystick.plumbing.log import ClosedBefore, Verdict, never_closed

_log = logging.getLogger(__name__)

BYTES_WAITING_MAX = 32 * 1024 * 1024
"""Bodies accepted into memory whose events are not yet durable: about 75,000 events."""

_EVENTS_PER_APPEND_MAX = 10_000
_EVENT_BYTES = 512
"""What an event counts for that came without a body."""


class Receipt(msgspec.Struct):
    """What became of one request: a duplicate is a success, a rejection has a reason."""

    accepted: int
    duplicates: int
    rejected: list[Rejection]


class BodyParser(Protocol):
    """Turns a request body into events; raises InvalidInput when it is unusable as a whole."""

    def __call__(
        self,
        body: bytes,
        *,
        content_type: str,
        content_encoding: str,
        headers: Mapping[str, str],
        received_at: int,
        redactor: Redactor,
        tenant_id: str = "",
        closed_before: int = 0,
    ) -> ParsedBody:
        """Parse, validate and redact; with a tenant, refuse what is another one's."""
        ...


_Outcome = tuple[ParsedBody, bytes]
"""What was read of a request, and a verdict for each of its events."""


class _Submission(NamedTuple):
    """One request that waits to be read and appended."""

    parse: Callable[[], ParsedBody]
    size_bytes: int
    received_at: int
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[_Outcome]


class Door:
    """Accepts events and makes them durable by its appender."""

    def __init__(
        self,
        appender: Appender,
        redactor: Redactor,
        clock: Clock,
        closed_before: ClosedBefore = never_closed,
    ) -> None:
        """`closed_before` tells before which time what is received at a moment is refused."""
        self.closed_before = closed_before
        self._appender = appender
        self._redactor = redactor
        self._clock = clock
        self._waiting: deque[_Submission] = deque()
        self._bytes_waiting = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="door", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._appender.open()
        self._thread.start()

    async def accept(
        self,
        body: bytes,
        *,
        content_type: str,
        content_encoding: str,
        headers: Mapping[str, str],
        parse_form: BodyParser = parse_body,
        tenant_id: str = "",
    ) -> Receipt:
        """Parse, redact, deduplicate and store a body; return when it is durable.

        Raises InvalidInput when the body as a whole is unusable, SlowDown when the queue
        is full, StoreUnavailable when the log cannot be reached; nothing is stored then.
        `tenant_id`: whose events these may be; "" is every tenant.
        """
        received_at = self._clock.now()
        parse = partial(
            self._parse,
            parse_form,
            body,
            content_type=content_type,
            content_encoding=content_encoding,
            headers=headers,
            received_at=received_at,
            redactor=self._redactor,
            tenant_id=tenant_id,
        )
        parsed, verdicts = await self._submit(parse, len(body), received_at)
        return receipt_of(parsed, verdicts)

    def _parse(self, parse_form: BodyParser, body: bytes, **given: Any) -> ParsedBody:
        """In the door's own thread: to look up a horizon may have to wait for PostgreSQL."""
        return parse_form(body, **given, closed_before=self.closed_before(given["received_at"]))

    @property
    def redactor(self) -> Redactor:
        """What redacts at this door; other ways in use it too."""
        return self._redactor

    async def append(self, events: list[Event]) -> bytes:
        """Store events made elsewhere; return one verdict byte each once they are durable.

        Raises SlowDown or StoreUnavailable as `accept` does.
        """
        parsed = ParsedBody(batch_of(events), list(range(len(events))), [], [])
        _, verdicts = await self._submit(
            lambda: parsed, len(events) * _EVENT_BYTES, self._clock.now()
        )
        return verdicts

    async def _submit(
        self, parse: Callable[[], ParsedBody], size_bytes: int, received_at: int
    ) -> _Outcome:
        loop = asyncio.get_running_loop()
        submission = _Submission(parse, size_bytes, received_at, loop, loop.create_future())
        with self._changed:
            if self._is_closing:
                raise SlowDown("the server is stopping; send the events again")
            if self._bytes_waiting >= BYTES_WAITING_MAX:
                raise SlowDown("too many events are waiting to be stored; send them again later")
            self._waiting.append(submission)
            self._bytes_waiting += size_bytes
            self._changed.notify()
        # the append goes on even if this request is cancelled: its events are then durable
        return await asyncio.shield(submission.answer)

    def close(self) -> None:
        """Append what waits, then stop."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while self._wait():
            read = self._read()
            try:
                outcomes = self._append(read)
            except TallystickError as error:
                self._answer([(submission, error) for submission, _ in read])
            except Exception as error:  # the lane must live on, the callers must know
                _log.exception("an append failed")
                failure = StoreUnavailable(f"append failed: {type(error).__name__}")
                self._answer([(submission, failure) for submission, _ in read])
            else:
                self._answer(outcomes)

    def _wait(self) -> bool:
        """Wait for a request; False when there is none and there will be no more."""
        with self._changed:
            while not self._waiting and not self._is_closing:
                self._changed.wait()
            return bool(self._waiting)

    def _read(self) -> list[tuple[_Submission, ParsedBody]]:
        """Read what waits, as much as one append takes; what is unusable is answered."""
        read: list[tuple[_Submission, ParsedBody]] = []
        count = 0
        while self._waiting and count < _EVENTS_PER_APPEND_MAX:
            submission = self._waiting.popleft()
            try:
                parsed = submission.parse()
            except Exception as error:  # concerns this request alone, whatever it is
                self._answer([(submission, error)])
            else:
                read.append((submission, parsed))
                count += parsed.batch.size + len(parsed.broken)
        return read

    def _append(
        self, read: Sequence[tuple[_Submission, ParsedBody]]
    ) -> list[tuple[_Submission, _Outcome]]:
        """Make everything durable in one append: events of each request, then its broken ones."""
        batch = join_batches(
            [part for _, parsed in read for part in (parsed.batch, batch_of(parsed.broken))]
        )
        verdicts = b""
        if batch.size:
            identities = identities_of(batch.columns, batch.size)
            verdicts = self._appender.append(batch, identities, read[0][0].received_at)
        outcomes: list[tuple[_Submission, _Outcome]] = []
        start = 0
        for submission, parsed in read:
            end = start + parsed.batch.size
            outcomes.append((submission, (parsed, verdicts[start:end])))
            start = end + len(parsed.broken)
        return outcomes

    def _answer(self, answers: Sequence[tuple[_Submission, _Outcome | Exception]]) -> None:
        with self._changed:
            self._bytes_waiting -= sum(submission.size_bytes for submission, _ in answers)
        for loop in {submission.loop for submission, _ in answers}:
            theirs = [answer for answer in answers if answer[0].loop is loop]
            loop.call_soon_threadsafe(_settle, theirs)


def _settle(answers: Sequence[tuple[_Submission, _Outcome | Exception]]) -> None:
    for submission, outcome in answers:
        if submission.answer.done():
            continue
        if isinstance(outcome, Exception):
            submission.answer.set_exception(outcome)
        else:
            submission.answer.set_result(outcome)


def receipt_of(parsed: ParsedBody, verdicts: bytes) -> Receipt:
    """Make the receipt, of one verdict for each parsed event."""
    conflicts = []
    if verdicts.count(Verdict.CONFLICT):
        ids = parsed.batch.values("event_id")
        conflicts = [
            Rejection(
                index=index,
                event_id=event_id,
                code="event_id_conflict",
                reason="this event_id was used before with other content; "
                "give each event its own id",
            )
            for index, event_id, verdict in zip(parsed.indexes, ids, verdicts, strict=True)
            if verdict == Verdict.CONFLICT
        ]
    return Receipt(
        accepted=verdicts.count(Verdict.ORIGINAL),
        duplicates=verdicts.count(Verdict.DUPLICATE),
        rejected=sorted(parsed.rejections + conflicts, key=lambda rejection: rejection.index),
    )
