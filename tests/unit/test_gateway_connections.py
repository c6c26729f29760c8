"""The gateway's connections to an upstream, against a server that misbehaves as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from tallystick.gateway.connections import (
    BUFFER_BYTES_MAX,
    Broken,
    Incoming,
    Origin,
    Unreached,
    request_head,
)

T = TypeVar("T")
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(*answers: bytes) -> Talk:
    """Answers the requests of each connection in order, then closes it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            if not await reader.readline():
                break
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    return talk


def run(
    talk: Talk,
    step: Callable[[Origin], Awaitable[T]],
    *,
    connections_max: int = 8,
    silence_seconds: float = 30,
) -> tuple[T, int]:
    """What a step found, and how many connections it took."""
    count = 0

    async def inside() -> T:
        talking: list[asyncio.Task[None] | None] = []

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            count += 1
            talking.append(asyncio.current_task())
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await talk(reader, writer)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

        server = await asyncio.start_server(accepted, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        origin = Origin(
            "127.0.0.1",
            port,
            is_secure=False,
            connections_max=connections_max,
            connect_seconds=5,
            silence_seconds=silence_seconds,
        )
        try:
            async with asyncio.timeout(20):
                return await step(origin)
        finally:
            origin.close()
            server.close()
            async with asyncio.timeout(20):
                await asyncio.gather(*filter(None, talking))

    return asyncio.run(inside()), count


async def body_of(answer: Incoming) -> bytes:
    pieces = []
    while piece := await answer.take():
        pieces.append(piece)
    return b"".join(pieces)


async def ask(origin: Origin) -> tuple[int, bytes]:
    answer = await origin.send(request_head("GET", "/", {"Host": "x"}), b"")
    return answer.status, await body_of(answer)


def test_a_connection_is_used_again() -> None:
    async def step(origin: Origin) -> list[tuple[int, bytes]]:
        return [await ask(origin) for _ in range(3)]

    assert run(answering(_OK, _OK, _OK, _OK), step) == ([(200, b"ok")] * 3, 1)


def test_one_that_closed_meanwhile_is_not() -> None:
    async def step(origin: Origin) -> tuple[int, bytes]:
        await ask(origin)
        while origin._open:  # its end is seen in the background
            await asyncio.sleep(0.01)
        return await ask(origin)

    assert run(answering(_OK), step) == ((200, b"ok"), 2)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", b"to the end"),
        (b"HTTP/1.1 100 Continue\r\nX-A: b\r\n\r\n" + _OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_an_answer_of_each_form_is_whole(answer: bytes, body: bytes) -> None:
    (_, found), _ = run(answering(answer), ask)
    assert found == body


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ncut",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 200_000,
    ],
)
def test_an_answer_that_breaks_off_is_told(answer: bytes) -> None:
    async def step(origin: Origin) -> None:
        with pytest.raises(Broken):
            await ask(origin)

    run(answering(answer), step)


def test_an_upstream_that_is_silent_is_told() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def step(origin: Origin) -> None:
        with pytest.raises(TimeoutError):
            await ask(origin)

    run(silent, step, silence_seconds=0.1)


def test_an_address_where_nobody_is_was_not_sent_anything() -> None:
    async def step(origin: Origin) -> None:
        gone = Origin(
            "127.0.0.1",
            1,
            is_secure=False,
            connections_max=1,
            connect_seconds=5,
            silence_seconds=5,
        )
        for _ in range(2):  # a try that failed leaves its place
            with pytest.raises(Unreached):
                await ask(gone)

    run(answering(), step)


def test_requests_wait_for_a_place_and_none_is_lost() -> None:
    async def step(origin: Origin) -> int:
        asks = [asyncio.create_task(ask(origin)) for _ in range(20)]
        await asyncio.sleep(0)
        asks[7].cancel()
        found = await asyncio.gather(*asks, return_exceptions=True)
        assert await ask(origin) == (200, b"ok")
        return found.count((200, b"ok"))

    assert run(answering(*[_OK] * 30), step, connections_max=2)[0] == 19


def test_a_reader_that_does_not_read_holds_little() -> None:
    size = 64 * BUFFER_BYTES_MAX
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size

    async def step(origin: Origin) -> int:
        answer = await origin.send(request_head("GET", "/", {"Host": "x"}), b"")
        for _ in range(50):
            await asyncio.sleep(0.001)
            assert answer.piece_bytes <= 4 * BUFFER_BYTES_MAX
        return len(await body_of(answer))

    assert run(answering(head + bytes(size)), step)[0] == size


def test_a_header_is_one_line() -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", "/", {"Host": "x\r\nX-Other: y"})
