"""Connections that are bounded: what a caller sends has to arrive, and its head has to be small.

uvicorn waits for ever for the rest of a head or body, and keeps a head of any size in memory. Here
a head has HEAD_SECONDS and HEAD_BYTES_MAX, a body may pause for BODY_PAUSE_SECONDS, and a request
has REQUEST_SECONDS to arrive in all. What is late is closed by a sweep over all connections once a
second, so a request in time costs two looks at the clock. How long an answer takes is no matter
here.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
HEAD_BYTES_MAX = 64 * 1024
BODY_PAUSE_SECONDS = 20.0
REQUEST_SECONDS = 600.0
_SWEEP_SECONDS = 1.0
_OFFER = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n|$)", re.IGNORECASE)


class BoundedProtocol(HttpToolsProtocol):
    """One connection; knows since when a request is arriving, and its last bytes."""

    began_at: float | None = None
    """When the request that is arriving began; None: none is, or all of it has arrived."""
    received_at = 0.0
    head_bytes = 0
    is_head = True

    def connection_made(self, transport: Any) -> None:
        """A connection that never sends a byte is late too."""
        super().connection_made(transport)
        self.began_at = self.received_at = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Read on; a head that grows beyond its bound ends the connection."""
        self.received_at = self.loop.time()
        if b"h2c" in data and (self.is_head or self.began_at is None):
            data = without_offer(data)
        super().data_received(data)
        if self.is_head and self.began_at is not None:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES_MAX:
                self.transport.close()

    def on_message_begin(self) -> None:
        """The first byte of a request is here."""
        super().on_message_begin()
        self.began_at = self.loop.time()
        self.head_bytes, self.is_head = 0, True

    def on_headers_complete(self) -> None:
        """The head is here."""
        self.is_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of a request is here."""
        self.began_at = None
        super().on_message_complete()

    def is_late(self, now: float) -> bool:
        """Tell whether what should have arrived by now has not."""
        if self.began_at is None:
            return False
        if self.is_head:
            return now - self.began_at > HEAD_SECONDS
        is_stalled = now - self.received_at > BODY_PAUSE_SECONDS and not self.flow.read_paused
        return is_stalled or now - self.began_at > REQUEST_SECONDS


def without_offer(received: bytes) -> bytes:
    r"""A head without its offer to speak HTTP/2, which Java's client makes with each request.

    A server may ignore the offer; the parser would take the body for the other protocol's.

    >>> without_offer(b"POST / HTTP/1.1\r\nUpgrade: h2c\r\nHost: a\r\n\r\nh2c")
    b'POST / HTTP/1.1\r\nHost: a\r\n\r\nh2c'
    """
    head, end, rest = received.partition(b"\r\n\r\n")
    return _OFFER.sub(b"", head) + end + rest


async def sweep(connections: set[Any]) -> None:
    """Close what is late, until cancelled."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        now = asyncio.get_running_loop().time()
        for connection in list(connections):
            if isinstance(connection, BoundedProtocol) and connection.is_late(now):
                connection.transport.close()
