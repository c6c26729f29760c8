"""The endpoint of the embedded ClickHouse: connections that come at once."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from tallystick.plumbing.embedded.clickhouse import _Handler, _Server


def test_many_connections_may_wait_to_be_accepted() -> None:
    """Nobody accepts here: what the kernel does not hold would be refused, or wait for seconds."""
    with ExitStack() as stack:
        server = stack.enter_context(_Server(("127.0.0.1", 0), _Handler))
        for _ in range(100):
            stack.enter_context(
                socket.create_connection(("127.0.0.1", server.server_port), timeout=10)
            )
