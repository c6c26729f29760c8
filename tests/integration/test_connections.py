"""HTTP as other clients speak it: many requests at once, and wishes for another protocol."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from tests.server import Server, event


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("connections") / "data").start()
    yield running
    assert running.stop() == 0


def _request(server: Server, event_id: str, *headers: str) -> bytes:
    body = msgspec.json.encode(event(event_id=event_id))
    head = [
        "POST /v1/events HTTP/1.1",
        "Host: x",
        f"Authorization: {server.client.headers['Authorization']}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def _read_receipts(connection: socket.socket, count: int) -> bytes:
    answer = b""
    while answer.count(b'"rejected":[]}') < count and (piece := connection.recv(65536)):
        answer += piece
    return answer


def test_many_requests_in_one_piece_are_all_answered(server: Server) -> None:
    """The last head is cut in the middle by the end of what is read at once."""
    count = 800
    requests = b"".join(_request(server, f"pipelined-{number}") for number in range(count))
    assert len(requests) > 256 * 1024
    with socket.create_connection(("127.0.0.1", server.client.base_url.port), 30) as connection:
        connection.sendall(requests)
        answer = _read_receipts(connection, count)
    assert answer.count(b"HTTP/1.1 200 OK") == count
    assert answer.count(b'"accepted":1') == count


@pytest.mark.parametrize(
    "wish",
    [
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAB"],
        ["Connection: Upgrade", "Upgrade: websocket"],
    ],
    ids=["h2c", "websocket"],
)
def test_a_wish_for_another_protocol_is_ignored(server: Server, wish: list[str]) -> None:
    """Java's own client wishes for HTTP/2 with every request; whole, and in two pieces."""
    with socket.create_connection(("127.0.0.1", server.client.base_url.port), 30) as connection:
        name = wish[-1]
        for number in range(2):
            request = _request(server, f"{name}-{number}", *wish)
            connection.sendall(request)
            assert b'"accepted":1' in _read_receipts(connection, 1)
        head, _, body = _request(server, f"{name}-2", *wish).partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n" + body[:10])
        connection.sendall(body[10:] + _request(server, f"{name}-3", *wish))
        assert _read_receipts(connection, 2).count(b'"accepted":1') == 2


def test_a_tunnel_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.client.base_url.port), 30) as connection:
        connection.sendall(b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
