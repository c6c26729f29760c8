"""Runs the application in this process until SIGTERM or SIGINT, then drains."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from tallystick.api.connections import BoundedProtocol, sweep

_DRAIN_SECONDS = 20
_TEND_SECONDS = 1.0
_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Take the port now, so that "in use" is said before anything else starts."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def run(
    app: Any,
    listener: socket.socket,
    *,
    on_ready: Callable[[], None],
    tend: Callable[[], None],
) -> None:
    """Serve on `listener`; call `on_ready` once, and `tend` every second from this thread."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        headers=[("X-Content-Type-Options", "nosniff")],
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        timeout_keep_alive=75,
        backlog=2048,
        server_header=False,
        proxy_headers=False,
    )
    server = _Server(config)

    async def main() -> None:
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        tending = asyncio.gather(
            _tend(server, on_ready, tend), sweep(server.server_state.connections)
        )
        try:
            await serving
        finally:
            tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await tending

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(main())


class _Server(uvicorn.Server):
    """Ends with exit status 0 on a signal; uvicorn's own would raise it again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT begin the drain."""
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self.handle_exit)
        yield


async def _tend(
    server: uvicorn.Server, on_ready: Callable[[], None], tend: Callable[[], None]
) -> None:
    while not server.started:
        await asyncio.sleep(0.01)
    on_ready()
    while True:
        await asyncio.sleep(_TEND_SECONDS)
        try:
            tend()
        except Exception:  # a fork that finds no memory, once, must not be the last try
            _log.exception("what the server needs could not be started; it is tried again")
