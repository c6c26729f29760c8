"""The load of the event pipeline: requests of 500 events over HTTP, open loop, one thread.

Server and load share the machine, so the load must cost little: a body is a template whose
tags and times are overwritten in place, and it goes to a socket as it is. Each request leaves
when it is due; one that was refused (503) leaves again.
"""

from __future__ import annotations

import re
import selectors
import time
from collections import deque
from multiprocessing.connection import Connection as Pipe

import numpy as np

from benchmarks.load import Connection
from tallystick.clock import SystemClock, format_time

TAG = b"@@@@@@@@"
NOW, BEFORE = b"2001-01-01T00:00:00", b"2002-02-02T00:00:00"
BROKEN = b',{"event_id":"broken"}]'
_CONNECTIONS = 8


class Bodies:
    """Bodies with a tag and times of their own, made in the place of the one before."""

    def __init__(self, template: bytes) -> None:
        """`template` is a JSON array with TAG, NOW and BEFORE where they are to be written."""
        self._text = np.frombuffer(template[:-1] + BROKEN, np.uint8).copy()
        self._whole = len(template)
        self._places = {
            mark: np.array([found.start() for found in re.finditer(re.escape(mark), template)])[
                :, None
            ]
            + np.arange(len(mark))
            for mark in (TAG, NOW, BEFORE)
        }

    def make(self, number: int, now: int) -> memoryview:
        """The body of a request; every other one has a malformed event as well."""
        self._write(TAG, b"%08d" % number)
        self._write(NOW, format_time(now)[:19].encode())
        self._write(BEFORE, format_time(now - 600_000_000)[:19].encode())
        is_broken = number % 2
        self._text[self._whole - 1] = ord("," if is_broken else "]")
        body = self._text if is_broken else self._text[: self._whole]
        return body.data

    def _write(self, mark: bytes, text: bytes) -> None:
        self._text[self._places[mark]] = np.frombuffer(text, np.uint8)


def send(port: int, key: str, template: bytes, every: float, requests: int, pipe: Pipe) -> None:
    """Send requests `every` so many seconds; tell (due, acknowledged, CPU seconds) at the end."""
    clock, bodies = SystemClock(), Bodies(template)
    head = (
        "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: "
    ).encode()
    poll = selectors.EpollSelector()
    free = deque(Connection(port) for _ in range(_CONNECTIONS))
    for connection in free:
        poll.register(connection.socket, selectors.EVENT_READ, connection)
    under_way: dict[Connection, int] = {}
    again: deque[int] = deque()
    begun, cpu = time.monotonic() + 0.5, time.process_time()
    due = [begun + number * every for number in range(requests)]
    acknowledged: dict[int, float] = {}
    sent = 0
    while len(acknowledged) < requests:
        now = time.monotonic()
        while free and (again or (sent < requests and due[sent] <= now)):
            number = again.popleft() if again else sent
            sent = max(sent, number + 1)
            body = bodies.make(number, clock.now())
            connection = free.popleft()
            under_way[connection] = number
            connection.send(b"%b%d\r\n\r\n" % (head, len(body)), due[number])
            connection.socket.sendall(body)
        is_idle = free and sent < requests
        for selected, _ in poll.select(max(due[sent] - now, 0) if is_idle else 0.05):
            connection = selected.data
            if status := connection.receive():
                number = under_way.pop(connection)
                if status == 200:
                    acknowledged[number] = time.monotonic()
                else:
                    again.append(number)
                free.append(connection)
    pipe.send(
        (due, [acknowledged[number] for number in range(requests)], time.process_time() - cpu)
    )
