"""The door: takes a request body, answers with a receipt once everything is durable.

Requests that arrive while an append is under way form the next append: one transaction,
one flush to disk for all of them. The queue is bounded; a full one pushes back (SlowDown)
before anything is stored. Broken messages are appended too, as `data.import.error`, so
that they are counted and can be explained; their content is only hashed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from tallystick.clock import Clock
from tallystick.errors import SlowDown, StoreUnavailable, TallystickError
from tallystick.events.adapters import ParsedBody, Rejection, parse_body
from tallystick.events.appending import Appender
from tallystick.events.batch import EventBatch, Identity, batch_of, identities_of, join_batches
from tallystick.events.model import Event
from tallystick.events.own import own_event
from tallystick.events.redaction import Redactor
from tallystick.plumbing.log import Verdict

_log = logging.getLogger(__name__)

EVENTS_WAITING_MAX = 60_000
"""Events accepted into memory but not yet durable, over all requests."""

_EVENTS_PER_APPEND_MAX = 10_000
_PARSE_IN_THREAD_BYTES = 32 * 1024


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
    ) -> ParsedBody:
        """Parse, validate and redact; with a tenant, refuse what is another one's."""
        ...


class _Submission(NamedTuple):
    """One request that waits to be appended."""

    batch: EventBatch
    identities: list[Identity]
    received_at: int
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[bytes]


class Door:
    """Accepts events and makes them durable by its appender."""

    def __init__(self, appender: Appender, redactor: Redactor, clock: Clock) -> None:
        self._appender = appender
        self._redactor = redactor
        self._clock = clock
        self._waiting: deque[_Submission] = deque()
        self._events_waiting = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._append_forever, name="door", daemon=True)

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
        self._check_room()
        received_at = self._clock.now()

        def parse() -> ParsedBody:
            return parse_form(
                body,
                content_type=content_type,
                content_encoding=content_encoding,
                headers=headers,
                received_at=received_at,
                redactor=self._redactor,
                tenant_id=tenant_id,
            )

        is_small = len(body) <= _PARSE_IN_THREAD_BYTES and not content_encoding
        parsed = parse() if is_small else await asyncio.to_thread(parse)
        verdicts = await self._submit(parsed, received_at)
        return receipt_of(parsed, verdicts)

    async def accept_own(self, messages: Sequence[Mapping[str, Any]]) -> Receipt:
        """Store events that the product makes itself, their times datetimes; as `accept` does."""
        self._check_room()
        received_at = self._clock.now()
        batches: list[EventBatch] = []
        for message in messages:
            batch = own_event(message, received_at, self._redactor)
            if batch is None:
                return await self.accept(
                    msgspec.json.encode(messages),
                    content_type="application/json",
                    content_encoding="",
                    headers={},
                )
            batches.append(batch)
        parsed = ParsedBody(join_batches(batches), list(range(len(batches))), [], [])
        return receipt_of(parsed, await self._submit(parsed, received_at))

    @property
    def redactor(self) -> Redactor:
        """What redacts at this door; other ways in use it too."""
        return self._redactor

    async def append(self, events: list[Event]) -> bytes:
        """Store events made elsewhere; return one verdict byte each once they are durable.

        Raises SlowDown or StoreUnavailable as `accept` does.
        """
        self._check_room()
        indexes = list(range(len(events)))
        return await self._submit(ParsedBody(batch_of(events), indexes, [], []), self._clock.now())

    def _check_room(self) -> None:
        if self._events_waiting >= EVENTS_WAITING_MAX:
            raise SlowDown("too many events are waiting to be stored; send them again later")

    async def _submit(self, parsed: ParsedBody, received_at: int) -> bytes:
        batch = parsed.batch
        if parsed.broken:
            batch = join_batches([batch, batch_of(parsed.broken)])
        if not batch.size:
            return b""
        loop = asyncio.get_running_loop()
        submission = _Submission(
            batch,
            identities_of(batch.columns, batch.size),
            received_at,
            loop,
            loop.create_future(),
        )
        with self._changed:
            if self._is_closing:
                raise SlowDown("the server is stopping; send the events again")
            self._waiting.append(submission)
            self._events_waiting += batch.size
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

    def _append_forever(self) -> None:
        while True:
            group = self._next_group()
            if not group:
                return
            try:
                verdicts = self._append(group)
            except TallystickError as error:
                self._answer_all(group, error)
            except Exception as error:  # the lane must live on, the callers must know
                _log.exception("an append failed")
                self._answer_all(group, StoreUnavailable(f"append failed: {type(error).__name__}"))
            else:
                self._answer_each(group, verdicts)

    def _next_group(self) -> list[_Submission]:
        with self._changed:
            while not self._waiting and not self._is_closing:
                self._changed.wait()
            group: list[_Submission] = []
            count = 0
            while self._waiting and count < _EVENTS_PER_APPEND_MAX:
                submission = self._waiting.popleft()
                group.append(submission)
                count += submission.batch.size
            return group

    def _append(self, group: list[_Submission]) -> bytes:
        batch = join_batches([submission.batch for submission in group])
        identities = [identity for submission in group for identity in submission.identities]
        return self._appender.append(batch, identities, group[0].received_at)

    def _answer_each(self, group: list[_Submission], verdicts: bytes) -> None:
        start = 0
        for submission in group:
            end = start + submission.batch.size
            self._answer(submission, verdicts[start:end], None)
            start = end

    def _answer_all(self, group: list[_Submission], error: TallystickError) -> None:
        for submission in group:
            self._answer(submission, b"", error)

    def _answer(
        self, submission: _Submission, verdicts: bytes, error: TallystickError | None
    ) -> None:
        with self._changed:
            self._events_waiting -= submission.batch.size

        def settle() -> None:
            if submission.answer.done():
                return
            if error is None:
                submission.answer.set_result(verdicts)
            else:
                submission.answer.set_exception(error)

        submission.loop.call_soon_threadsafe(settle)


def receipt_of(parsed: ParsedBody, verdicts: bytes) -> Receipt:
    """Make the receipt: verdicts of the parsed events first, broken messages after them."""
    judged = verdicts[: parsed.batch.size]
    conflicts = []
    if judged.count(Verdict.CONFLICT):
        ids = parsed.batch.values("event_id")
        conflicts = [
            Rejection(
                index=index,
                event_id=event_id,
                code="event_id_conflict",
                reason="this event_id was used before with other content; "
                "give each event its own id",
            )
            for index, event_id, verdict in zip(parsed.indexes, ids, judged, strict=True)
            if verdict == Verdict.CONFLICT
        ]
    return Receipt(
        accepted=judged.count(Verdict.ORIGINAL),
        duplicates=judged.count(Verdict.DUPLICATE),
        rejected=sorted(parsed.rejections + conflicts, key=lambda rejection: rejection.index),
    )
