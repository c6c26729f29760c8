"""A streamed answer: passed on as it comes, read on the side, settled when it ends.

The client's first byte waits for nothing but the upstream's. What it did not ask for (the
usage chunk) is left out. When the answer nears what its hold covers, the hold is topped up;
refused, the stream is ended in the protocol's own way and the upstream's connection closed.
When the client goes away, or leaves what it is sent unread, the upstream is read on, within
bounds, so that the provider's own count is what is charged. Nobody waits for the other without
an end: a look, a few times a second, interrupts what a kill switch or a bound ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from tallystick.errors import TallystickError
from tallystick.gateway.headers import answer_headers, call_headers
from tallystick.gateway.insisting import insist
from tallystick.gateway.model import UpstreamFailed
from tallystick.gateway.money import CallPermit
from tallystick.gateway.outbound import Answer
from tallystick.header_text import header_text
from tallystick.usage import StreamedAnswer
from tallystick.usage.reading import tokens_so_far

if TYPE_CHECKING:
    from tallystick.gateway.calling import Attempt, Calling

_EDGE = 0.8
"""Share of the held output tokens at which the hold is topped up."""
_OWN_MAXIMUM_SLACK = 2
"""A request's own maximum holds its upstream, which counts tokens: ours are an estimate by
bytes, often above. Only an answer far beyond says that the upstream does not heed it."""
_LOOK_SECONDS = 0.25
"""How often a stream looks for a kill switch, and at whom it waits for."""
_LAST_SECONDS = 2.0
"""How long a client may take to accept the last words of a stream."""
_GROWTH = 2
"""Each top-up holds for this many times as many output tokens."""


def add_headers(response: Response, headers: Mapping[str, str]) -> None:
    """Say more with an answer that has not begun."""
    if isinstance(response, StreamAnswer):
        response.more_headers.update(headers)
    elif headers:
        response.headers.update(headers)


class StreamAnswer(Response):
    """The ASGI answer of one streamed call."""

    def __init__(self, calling: Calling, attempt: Attempt, answer: Answer) -> None:
        self.status_code = 200
        self.background = None
        self.more_headers: dict[str, str] = {}
        self._calling = calling
        self._attempt = attempt
        self._answer = answer
        self._permit: CallPermit = attempt.permit
        self._reader = attempt.call.surface.reader(attempt.call.asked)
        self._stream = StreamedAnswer(self._reader)
        self._is_gone = False
        self._gone_at = 0.0
        self._sending_since = 0.0
        """0 while nothing waits for the client."""
        self._drained = 0
        self._looking: asyncio.TimerHandle | None = None
        self._top_up: asyncio.Task[CallPermit] | None = None
        self._cut: TallystickError | None = None
        """What ends it before its upstream does: a kill switch, or a top-up that was refused."""
        self._error_code = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the stream on (ASGI), and settle it whatever happens."""
        watcher = asyncio.ensure_future(self._watch(receive))
        try:
            await self._pass_on(send)
        except asyncio.CancelledError:
            self._error_code = "cancelled"
            raise
        finally:
            watcher.cancel()
            self._answer.close()
            await self._calling.ending(self._end())
        await self._send_last(send, b"", is_end=True)

    async def abandon(self) -> None:
        """Settle a stream that will not be passed on: nobody was sent any of it."""
        self._error_code = "cancelled"
        self._answer.close()
        await self._calling.ending(self._end())

    def _start(self) -> dict[str, object]:
        headers = answer_headers(self._answer.headers)
        headers.update(call_headers(self._permit, None, "", self._attempt.call.downgraded_by))
        headers.update(self.more_headers)
        headers["Cache-Control"] = "no-store"
        headers["X-Accel-Buffering"] = "no"
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        return {"type": "http.response.start", "status": 200, "headers": raw}

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        """From now on nothing is sent: the upstream alone is read on."""
        if not self._is_gone:
            self._is_gone, self._gone_at = True, time.perf_counter()

    async def _pass_on(self, send: Send) -> None:
        """Pass on until it ends; from a client that is stuck on, only read."""
        pieces = self._answer.pieces()
        head: Message | None = self._start()
        last = None
        while last is None:
            try:
                async with asyncio.timeout(None) as patience:
                    self._look_later(patience)
                    if head is not None:
                        await self._send(send, head)
                    last = await self._relay(pieces, send)
            except TimeoutError:
                if not patience.expired():
                    raise
                last = self._interrupted()
            finally:
                self._stop_looking()
            head = None
        await self._send_last(send, last)

    def _look_later(self, patience: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(_LOOK_SECONDS, self._look, patience)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()

    def _look(self, patience: asyncio.Timeout) -> None:
        """Interrupt the relay when nothing more is to be waited for; else look again later."""
        if self._sees_kill() or self._is_overdue():
            patience.reschedule(0)
        else:
            self._look_later(patience)

    def _interrupted(self) -> bytes | None:
        """What is left to say after a look ended the relay; None to read on without a client."""
        if self._cut is not None:
            return self._cut_off(self._cut)
        if not self._sending_since:
            self._note_gone()
            return b""
        self._sending_since = 0.0
        self._leave()
        return None

    def _note_gone(self) -> None:
        """The client left and nothing more is read: a loss only while the answer goes on."""
        if not self._reader.is_ended:
            self._error_code = "client_gone"

    def _is_overdue(self) -> bool:
        """Whether the client takes nothing, or is gone and its upstream's time is up."""
        settings, now = self._calling.settings, time.perf_counter()
        if self._is_gone:
            return now - self._gone_at > settings.drain_seconds
        return bool(self._sending_since) and now - self._sending_since > settings.client_seconds

    async def _send(self, send: Send, message: Message) -> None:
        self._sending_since = time.perf_counter()
        await send(message)
        self._sending_since = 0.0

    async def _relay(self, pieces: AsyncIterator[bytes], send: Send) -> bytes:
        """Until the upstream ends, the money ends, or a gone client's bytes are used up.

        Returns what is left to say.
        """
        try:
            async for piece in pieces:
                shown = self._stream.feed(piece)
                if self._is_gone:
                    self._drained += len(piece)
                    if self._drained > self._calling.settings.drain_bytes:
                        self._note_gone()
                        return b""
                elif shown:
                    message = {"type": "http.response.body", "body": shown, "more_body": True}
                    await self._send(send, message)
                if self._is_near_edge():
                    await self._cover_more()
                    if self._cut is not None:
                        return self._cut_off(self._cut)
            return self._stream.end()
        except UpstreamFailed as failure:
            if self._reader.is_ended:  # the answer is whole, and only its connection broke
                return b""
            self._error_code = failure.code
            return self._reader.failure(failure.code, failure.message)

    async def _send_last(self, send: Send, body: bytes, *, is_end: bool = False) -> None:
        """Send what is left to say, to a client that takes it."""
        if self._is_gone or not (body or is_end):
            return
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await send({"type": "http.response.body", "body": body, "more_body": not is_end})
        except TimeoutError:
            self._leave()

    def _sees_kill(self) -> bool:
        """Whether a kill switch ends this stream."""
        try:
            self._calling.calls.check_running(self._permit)
        except TallystickError as killed:
            self._cut = killed
        return self._cut is not None

    def _is_near_edge(self) -> bool:
        """Whether the answer needs more than its hold covers soon."""
        return tokens_so_far(self._reader) >= self._held() * _EDGE and not self._reader.is_ended

    def _held(self) -> int:
        held = self._permit.tokens_output
        is_own = self._attempt.call.asked.tokens_output_max is not None
        return held * _OWN_MAXIMUM_SLACK if is_own else held

    async def _cover_more(self) -> None:
        """Top the hold up in time; refused, the answer is cut where it is beyond its hold.

        Until it is known, an answer that has used its hold up waits.
        """
        held, tokens = self._held(), tokens_so_far(self._reader)
        if self._top_up is None:
            more = partial(
                self._calling.calls.top_up, self._permit, tokens_output=self._more_tokens()
            )
            self._top_up = asyncio.ensure_future(insist(more))  # a store may be away for a moment
        if tokens < held and not self._top_up.done():
            return
        try:
            self._permit = await asyncio.shield(self._top_up)
        except TallystickError as refused:
            if tokens >= held:
                self._cut = refused
        else:
            self._top_up = None

    def _more_tokens(self) -> int:
        return max(self._permit.tokens_output, 64) * _GROWTH

    def _cut_off(self, cut: TallystickError) -> bytes:
        """Stop the upstream; the answer's end in the protocol's own way."""
        self._error_code = cut.code
        self._answer.close()
        return self._reader.ending(cut.code, cut.message, tokens_so_far(self._reader))

    async def _end(self) -> None:
        """Settle by the provider's count, or by what was generated as far as it was seen."""
        try:
            if self._top_up is not None:
                with contextlib.suppress(Exception):  # the settlement never depends on it
                    self._permit = await self._top_up
            seen = self._reader.seen
            error_code = self._error_code or seen.error_code
            await self._calling.settle(
                self._attempt._replace(permit=self._permit),
                self._stream.usage(self._attempt.call.asked.tokens_input),
                outcome="failed" if error_code else "completed",
                error_code=error_code,
                provider_request_id=header_text(self._answer.headers.get("x-request-id", "")),
                served_model=seen.served_model,
                service_tier=seen.service_tier,
            )
        finally:
            self._calling.give_back(self._attempt)
