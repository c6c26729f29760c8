"""HTTP/1.1 connections to one upstream: kept alive, bounded, one request at a time on each.

A general client spends more CPU on a call than the gateway itself does (96 microseconds by
`benchmarks/http_clients.py`, where 15 are the floor). What the gateway needs of one is little:
no redirects, cookies, proxies or decoding, a body that is bytes, an answer read as it comes.
The parser is httptools (llhttp), which the server side uses too. An answer that the reader does
not take is not read from the socket, so a slow client holds no more than BUFFER_BYTES_MAX.
Time-outs are looked after by a sweep over all connections, so a request costs no timer.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio.staggered import staggered_race
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import httptools

BUFFER_BYTES_MAX = 128 * 1024
"""Of an answer, read and not taken yet; then the socket is left alone."""
HEAD_BYTES_MAX = 64 * 1024
KEEPALIVE_SECONDS = 60.0
_SWEEP_SECONDS = 0.5
_NEXT_ADDRESS_SECONDS = 0.25
"""After which a host's next address is tried beside the last (RFC 8305)."""


class Unreached(OSError):
    """No connection could be made: nothing was sent."""


class Broken(OSError):
    """The connection broke, or what came is not an answer."""


class Incoming:
    """An answer under way; its connection goes on to the next request once all of it came."""

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names in lower case; of several the first."""
        self.is_complete = False
        self.failure: OSError | None = None
        self.head_bytes = 0
        self.has_length = False
        self.pieces: list[bytes] = []
        self.piece_bytes = 0
        self._connection = connection
        self._changed: asyncio.Future[None] | None = None

    async def head(self) -> None:
        """Return once the status and headers are here; raises Broken or TimeoutError."""
        while not self.status:
            await self._change()

    async def take(self) -> bytes:
        """What has come of the body, waited for; b"" at its end; raises Broken, TimeoutError."""
        while not self.pieces:
            if self.is_complete:
                return b""
            await self._change()
        taken = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.pieces.clear()
        self.piece_bytes = 0
        if not self.is_complete:
            self._connection.resume()
        return taken

    def close(self) -> None:
        """Stop reading; the upstream sees its reader go away unless all was read."""
        if not self.is_complete:
            self._connection.close()

    def wake(self) -> None:
        """Something came."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def _change(self) -> None:
        if self.failure is not None:
            raise self.failure
        self._changed = asyncio.get_running_loop().create_future()
        try:
            await self._changed
        finally:
            self._changed = None


class Connection(asyncio.Protocol):
    """One connection; `answer` is what it is busy with."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser = httptools.HttpResponseParser(self)
        self._is_paused = False
        self.answer: Incoming | None = None
        self.due_at = 0.0
        """When something has to have come, or, idle, when it is closed."""

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return not self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> Incoming:
        """Send a request; its answer begins to come."""
        self.answer = answer = Incoming(self)
        self.due_at = self._loop.time() + self._origin.silence_seconds
        self._transport.write(head + body)
        return answer

    def resume(self) -> None:
        """The reader took what there was."""
        if self._is_paused:
            self._is_paused = False
            self.due_at = self._loop.time() + self._origin.silence_seconds
            self._transport.resume_reading()

    def close(self) -> None:
        """Let go."""
        self._transport.close()

    def expire(self, now: float) -> None:
        """Close what has been idle, or has been waited for, too long."""
        if now < self.due_at or self._is_paused:
            return
        self._fail(TimeoutError("the upstream is silent"))
        self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        """It is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer."""
        answer = self.answer
        if answer is None:  # nobody asked for anything
            self._transport.close()
            return
        self.due_at = self._loop.time() + self._origin.silence_seconds
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Broken("what came is not an answer"))
            self._transport.close()
            answer.wake()
            return
        if not answer.status:
            answer.head_bytes += len(data)
            if answer.head_bytes > HEAD_BYTES_MAX:
                self._fail(Broken("the head of the answer is too long"))
                self._transport.close()
        elif answer.piece_bytes > BUFFER_BYTES_MAX and not answer.is_complete:
            self._is_paused = True
            self._transport.pause_reading()
        answer.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; an answer without a length ends so."""
        answer = self.answer
        if answer is not None and exc is None and answer.status and not answer.has_length:
            answer.is_complete = True
            answer.wake()
            self.answer = None
        self._fail(Broken("the connection was closed"))
        self._origin.lost(self)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        assert self.answer is not None
        self.answer.headers.setdefault(name.lower().decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """The head is here; 1xx only announces another one."""
        answer = self.answer
        assert answer is not None
        status = self._parser.get_status_code()
        if status < 200:
            answer.headers.clear()
            return
        answer.has_length = "content-length" in answer.headers or "chunked" in (
            answer.headers.get("transfer-encoding", "").lower()
        )
        answer.status = status

    def on_body(self, piece: bytes) -> None:
        """Some of the body."""
        assert self.answer is not None
        self.answer.pieces.append(piece)
        self.answer.piece_bytes += len(piece)

    def on_message_complete(self) -> None:
        """All of it came: the connection is free, if all of the request was taken too."""
        answer = self.answer
        if answer is None or not answer.status:
            return
        answer.is_complete = True
        self.answer = None
        is_kept = self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        if is_kept:
            self.due_at = self._loop.time() + KEEPALIVE_SECONDS
            self._origin.give_back(self)
        else:
            self._transport.close()

    def _fail(self, failure: OSError) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.failure = failure
            answer.wake()


class Origin:
    """All connections to one upstream; belongs to one event loop."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        is_secure: bool,
        connections_max: int,
        connect_seconds: float,
        silence_seconds: float,
    ) -> None:
        self._host = host
        self._port = port
        self._tls = _tls_context() if is_secure else None
        self._connections_max = connections_max
        self._connect_seconds = connect_seconds
        self.silence_seconds = silence_seconds
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    async def send(self, head: bytes, body: bytes) -> Incoming:
        """Send a request; return its answer once the head came.

        Raises Unreached when nothing was sent, else Broken or TimeoutError.
        """
        connection = self._take() or await self._wait()
        answer = connection.send(head, body)
        try:
            await answer.head()
        except BaseException:
            connection.close()
            raise
        return answer

    def close(self) -> None:
        """Close every connection."""
        for connection in tuple(self._open):
            connection.close()
        if self._sweep is not None:
            self._sweep.cancel()

    def give_back(self, connection: Connection) -> None:
        """A connection is free."""
        self._idle.append(connection)
        self._wake_one()

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake_one()

    def _take(self) -> Connection | None:
        """The free connection that was used last: the others may grow old and close."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _wait(self) -> Connection:
        """A new connection, or, when there may be no more, one that another request gives back."""
        while len(self._open) + self._connecting >= self._connections_max:
            free = asyncio.get_running_loop().create_future()
            self._waiting.append(free)
            try:
                await free
            except asyncio.CancelledError:
                if free.done() and not free.cancelled():
                    self._wake_one()  # it was our turn: the next one's then
                raise
            connection = self._take()
            if connection is not None:
                return connection
        return await self._connect()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        self._connecting += 1
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(self),
                    sock=await _reach(self._host, self._port),
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except OSError as error:  # a TimeoutError, and what TLS refuses, is one
            raise Unreached("no connection") from error
        finally:
            self._connecting -= 1
            self._wake_one()
        self._open.add(connection)
        if self._sweep is None:
            self._sweep = loop.call_later(_SWEEP_SECONDS, self._expire)
        return connection

    def _expire(self) -> None:
        """Look after time-outs for as long as there are connections."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in tuple(self._open):
            connection.expire(now)
        self._sweep = loop.call_later(_SWEEP_SECONDS, self._expire) if self._open else None

    def _wake_one(self) -> None:
        while self._waiting:
            free = self._waiting.popleft()
            if not free.done():
                free.set_result(None)
                return


async def _reach(host: str, port: int) -> socket.socket:
    """A socket that is connected; an address that does not answer holds up the next one little."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    async def reach(family: int, address: Any) -> socket.socket:
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(made, address)
        except BaseException:
            made.close()
            raise
        return made

    tries = [partial(reach, family, address) for family, _, _, _, address in found]
    reached: socket.socket | None
    reached, _, failures = await staggered_race(tries, _NEXT_ADDRESS_SECONDS)
    if reached is None:
        raise OSError("no address of the upstream answers") from next(filter(None, failures), None)
    return reached


def request_head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request; raises ValueError for a header that would be two."""
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
        raise ValueError("a header has a line break")
    return (text + "\r\n\r\n").encode("latin-1")


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
