"""An open-loop HTTP load generator: a process of its own, one thread, keep-alive connections.

Requests leave when they are due, at a fixed rate, whether or not earlier ones were answered;
a latency runs from when the request was due, also when it had to wait for a connection. So a
server that stalls is charged for the stall (no coordinated omission). With rate 0 every
connection sends its next request at once: that finds the throughput, not the latency.

    python -m benchmarks.load PORT KEY RATE CONNECTIONS SECONDS KIND ACCOUNTS TAG

prints one line of JSON. KIND: hold, hot, call (through the gateway), direct (to its upstream)
or path:/a/path (another gateway; KEY may be whole headers).
"""

from __future__ import annotations

import json
import random
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable

Make = Callable[[int], bytes]


class Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.buffer = b""

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self.socket.sendall(request)

    def receive(self) -> int:
        """Return the status once the whole answer is here, or 0."""
        self.buffer += self.socket.recv(65536)
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return 0
        at = self.buffer.lower().find(b"content-length:", 0, end)
        if at < 0:  # in chunks
            last = self.buffer.find(b"\r\n0\r\n\r\n", end)
            done = last + 7 if last > 0 else 0
        else:
            done = end + 4 + int(self.buffer[at + 15 : self.buffer.find(b"\r\n", at)])
        if not done or len(self.buffer) < done:
            return 0
        status = int(self.buffer[9:12])
        self.buffer = self.buffer[done:]
        return status


def hold_maker(key: str, accounts: int, tag: str) -> Make:
    choose = random.Random(tag)

    def make(number: int) -> bytes:
        account = choose.randint(1, accounts)
        body = (
            f'{{"account_id":"acct-{account}","amount":"0.001",'
            f'"idempotency_key":"{tag}-{number}","run_id":"run-{tag}-{number}"}}'
        )
        return (
            f"POST /v1/holds HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    return make


def call_maker(key: str, path: str, accounts: int, tag: str) -> Make:
    """Chat calls of about 1 KB, as an app sends them; a key with a colon is whole headers."""
    headers = key if ":" in key else f"Authorization: Bearer {key}"
    choose = random.Random(tag)
    text = "Please summarise the meeting notes that follow. " * 16

    def make(number: int) -> bytes:
        account = choose.randint(1, accounts)
        body = (
            '{"model":"gpt-4o","max_tokens":100,"messages":[{"role":"user","content":"'
            f'#normal in=240 out=20# {text}"}}]}}'
        )
        return (
            f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"
            f"X-Tallystick-Account: acct-{account}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    return make


def run(
    port: int, make: Make, *, rate: float, connections: int, seconds: float
) -> dict[str, object]:
    """Drive the server; returns counts by status and latencies in milliseconds."""
    poll = selectors.EpollSelector()
    free: deque[Connection] = deque()
    for _ in range(connections):
        connection = Connection(port)
        poll.register(connection.socket, selectors.EVENT_READ, connection)
        free.append(connection)
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    sent, begun = 0, time.perf_counter()
    ends = begun + seconds
    while True:
        now = time.perf_counter()
        while free and now < ends:
            due = begun + sent / rate if rate else now
            if due > now:
                break
            free.popleft().send(make(sent), due)
            sent += 1
        if now >= ends and len(free) == connections:
            break
        if now > ends + 30:
            break
        wait = 0.05 if not free or now >= ends else max(begun + sent / rate - now, 0)
        for key, _ in poll.select(wait):
            connection = key.data
            status = connection.receive()
            if status:
                latencies.append((time.perf_counter() - connection.due) * 1000)
                statuses[status] = statuses.get(status, 0) + 1
                free.append(connection)
    took = time.perf_counter() - begun
    latencies.sort()

    def share(part: float) -> float:
        return round(latencies[min(int(len(latencies) * part), len(latencies) - 1)], 2)

    return {
        "per_second": round(len(latencies) / took),
        "p50_ms": share(0.5),
        "p99_ms": share(0.99),
        "p999_ms": share(0.999),
        "max_ms": share(1),
        "statuses": statuses,
        "cpu_percent": round(100 * time.process_time() / took),
    }


def main() -> None:
    port, key, rate, connections, seconds, kind, accounts, tag = sys.argv[1:]
    count = 1 if kind == "hot" else int(accounts)
    if kind == "call":
        make = call_maker(key, "/openai/v1/chat/completions", count, tag)
    elif kind.startswith("path:"):
        make = call_maker(key, kind.removeprefix("path:"), count, tag)
    elif kind == "direct":
        make = call_maker(key, "/v1/chat/completions", count, tag)
    else:
        make = hold_maker(key, count, tag)
    found = run(
        int(port), make, rate=float(rate), connections=int(connections), seconds=float(seconds)
    )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
