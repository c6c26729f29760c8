"""An answer's stream that settles its call when it is over, however it ends.

At its end, when the caller closes it, when it breaks, and as a last resort when it is
collected unclosed or the process ends. Events are read as they pass; a whole answer, and what
was compressed although nobody asked for it, is gathered and read then. What cannot be read is
not free: the provider has made the answer, so it pays the output that was set aside. The stream
is made from the stream class of the HTTP library that the client uses (httpx or httpx2), because
a response checks the class of its stream.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from tallystick.sdk.context import error_code_of
from tallystick.sdk.metering.meter import MeteredCall

Decode = Callable[[bytes], bytes | None]
"""Makes a compressed body plain; None when it cannot."""


class _Metered:
    """What both streams share."""

    def __init__(
        self, inner: Any, metered: MeteredCall, decode: Decode | None, *, is_events: bool
    ) -> None:
        self._inner = inner
        self._metered = metered
        self._decode = decode
        self._is_events = is_events
        self._gathered: list[bytes] | None = None if is_events and decode is None else []
        metered.recorder.unfinished.add(self)

    def _take(self, chunk: bytes) -> bytes:
        if self._gathered is None:
            return self._metered.reading.feed(chunk)
        self._gathered.append(chunk)
        return chunk

    def _rest(self) -> bytes:
        if self._gathered is None:
            return self._metered.reading.end()
        self._read_gathered()
        return b""

    def _read_gathered(self) -> None:
        """Read what was gathered, whole or as far as it came; once."""
        gathered, self._gathered = self._gathered, None
        if gathered is None:
            return
        reading, body = self._metered.reading, b"".join(gathered)
        plain = self._decode(body) if self._decode else body
        if plain is None:
            reading.take_unread()
        elif self._is_events:
            reading.feed(plain)
            reading.end()
        else:
            reading.take_answer(plain)

    def _outcome_at_close(self) -> str:
        return "completed" if self._metered.reading.is_whole else "cancelled"

    def abandon(self) -> None:
        """The process ends, and nobody has closed it."""
        if self._metered.call.is_open:
            self._read_gathered()
            self._metered.settle_by_spool("cancelled", "abandoned")

    def disown(self) -> None:
        """In the child of a fork: it is the parent's."""
        self._metered.call.disown()

    def __del__(self) -> None:
        metered = getattr(self, "_metered", None)
        if metered is not None and metered.call.is_open:
            self._read_gathered()
            metered.settle_from_collector()


class _SyncMetered(_Metered):
    def __iter__(self) -> Iterator[bytes]:
        try:
            for chunk in self._inner:
                if passed := self._take(chunk):
                    yield passed
            if passed := self._rest():
                yield passed
        except GeneratorExit:
            raise  # `close` follows
        except Exception as error:
            self._read_gathered()
            self._metered.settle("failed", error_code_of(error))
            raise
        except BaseException as error:
            self._read_gathered()
            self._metered.settle_by_spool("cancelled", error_code_of(error))
            raise
        self._metered.settle("completed")

    def close(self) -> None:
        """The caller has what it wants."""
        try:
            self._inner.close()
        finally:
            self._read_gathered()
            self._metered.settle(self._outcome_at_close())


class _AsyncMetered(_Metered):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                if passed := self._take(chunk):
                    yield passed
            if passed := self._rest():
                yield passed
        except GeneratorExit:
            raise
        except Exception as error:
            self._read_gathered()
            await self._metered.settle_async("failed", error_code_of(error))
            raise
        except BaseException as error:
            self._read_gathered()
            self._metered.settle_by_spool("cancelled", error_code_of(error))
            raise
        await self._metered.settle_async("completed")

    async def aclose(self) -> None:
        """The caller has what it wants."""
        try:
            await self._inner.aclose()
        finally:
            self._read_gathered()
            await self._metered.settle_async(self._outcome_at_close())


@functools.cache
def _stream_class(library: str, *, is_async: bool) -> type[_Metered]:
    module = sys.modules[library]
    if is_async:
        return type("AsyncMeteredStream", (_AsyncMetered, module.AsyncByteStream), {})
    return type("MeteredStream", (_SyncMetered, module.SyncByteStream), {})


def library_of(request: Any) -> str:
    """The HTTP library that a request belongs to: httpx or httpx2."""
    return str(type(request).__module__.partition(".")[0])


def meter_stream(response: Any, metered: MeteredCall, library: str, *, is_async: bool) -> None:
    """Let the response's stream settle the call."""
    content_type = response.headers.get("content-type", "")
    is_events = "text/event-stream" in content_type
    if metered.call.request.is_stream and "json" not in content_type:
        is_events = True  # some servers do not name what they send
    made = _stream_class(library, is_async=is_async)
    decode = _decode_of(response, library)
    response.stream = made(response.stream, metered, decode, is_events=is_events)


def _decode_of(response: Any, library: str) -> Decode | None:
    """What makes the body plain, by the HTTP library's own decoders; None when it is."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return None

    def decode(body: bytes) -> bytes | None:
        headers = {"content-encoding": encoding}
        try:
            plain = sys.modules[library].Response(200, headers=headers, content=body).content
        except Exception:  # damaged
            return None
        return None if plain == body else bytes(plain)  # an encoding that is not known here

    return decode
