"""An answer's stream that settles its call when it is over, however it ends.

At its end, when the caller closes it, when it breaks, and as a last resort when it is
collected unclosed. It is made from the stream class of the HTTP library that the client
uses (httpx or httpx2), because a response checks the class of its stream.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from tallystick.sdk.context import error_code_of
from tallystick.sdk.metering.meter import MeteredCall
from tallystick.sdk.metering.server_sent import EventFilter


class _Metered:
    """What both streams share."""

    def __init__(self, inner: Any, metered: MeteredCall, *, is_events: bool) -> None:
        self._inner = inner
        self._metered = metered
        self._body: list[bytes] | None = None if is_events else []
        self._filter = EventFilter(
            metered.reading, hides_usage=is_events and metered.call.request.hides_usage
        )

    def _take(self, chunk: bytes) -> bytes:
        if self._body is None:
            return self._filter.feed(chunk)
        self._body.append(chunk)
        return chunk

    def _rest(self) -> bytes:
        if self._body is None:
            return self._filter.end()
        self._metered.reading.take_answer(b"".join(self._body))
        return b""

    def _outcome_at_close(self) -> str:
        return "completed" if self._metered.reading.is_final else "cancelled"

    def __del__(self) -> None:
        metered = getattr(self, "_metered", None)
        if metered is not None:
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
            self._metered.settle("failed", error_code_of(error))
            raise
        except BaseException as error:
            self._metered.settle_by_spool("cancelled", error_code_of(error))
            raise
        self._metered.settle("completed")

    def close(self) -> None:
        """The caller has what it wants."""
        try:
            self._inner.close()
        finally:
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
            await self._metered.settle_async("failed", error_code_of(error))
            raise
        except BaseException as error:
            self._metered.settle_by_spool("cancelled", error_code_of(error))
            raise
        await self._metered.settle_async("completed")

    async def aclose(self) -> None:
        """The caller has what it wants."""
        try:
            await self._inner.aclose()
        finally:
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
    is_events = "text/event-stream" in response.headers.get("content-type", "")
    made = _stream_class(library, is_async=is_async)
    response.stream = made(response.stream, metered, is_events=is_events)
