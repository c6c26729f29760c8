"""An engine that hangs without ending is noticed, killed and started again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tallystick.plumbing.embedded.heartbeat import Heartbeat, Pulse
from tests.server import Server, event

_DEADLINE_SECONDS = 120


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TALLYSTICK_ENGINE_SILENT_SECONDS", "8")
    running = Server(tmp_path / "data").start()
    yield running
    assert running.stop() == 0


def _engines(server: Server) -> list[psutil.Process]:
    return [one for one in server.tree() if "tallystick.workers.engine" in one.cmdline()]


def test_a_stopped_engine_is_killed_and_started_again(server: Server) -> None:
    (hung,) = _engines(server)
    hung.suspend()
    try:
        posted = server.client.post("/v1/events", json=event(tenant_id="patience"))
        assert posted.json()["accepted"] == 1, "the door does not need it"
        hung.wait(_DEADLINE_SECONDS)
    finally:
        if hung.is_running():
            hung.resume()
    server.wait_until_ready()
    server.wait_until_settled()
    (row,) = server.get("/v1/stats", tenant_id="patience")["rows"]
    assert row["calls"] == 1
    assert [one.pid for one in _engines(server)] != [hung.pid]


@pytest.mark.skipif(sys.platform != "linux", reason="the port is held on Linux alone")
def test_nobody_takes_the_port_of_an_engine_that_is_away(server: Server) -> None:
    (dead,) = _engines(server)
    ports = {one.laddr.port for one in dead.net_connections() if one.status == "LISTEN"}
    dead.kill()
    dead.wait(_DEADLINE_SECONDS)
    for port in ports:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", port))
    server.wait_until_ready()
    (next_one,) = _engines(server)
    found = {one.laddr.port for one in next_one.net_connections() if one.status == "LISTEN"}
    assert found == ports != set()


def test_looks_without_a_sign_are_counted_until_the_next_one() -> None:
    with subprocess.Popen(
        ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b'\n\n{"port": 7}\n')
        pulse = Pulse(child.stdout)
        assert pulse.wait_for_words() == b'{"port": 7}\n'
        for looks in range(1, 4):
            pulse.look()
            assert pulse.silent_looks == looks
        child.stdin.write(b"\n")
        _look_until_heard(pulse)
        assert pulse.said == b'{"port": 7}'
        child.stdin.close()


def test_no_beat_while_what_it_depends_on_does_not_answer() -> None:
    reading, writing = os.pipe()
    release, held = os.pipe()
    heartbeat = Heartbeat(writing)
    heartbeat.depend_on(lambda: os.read(release, 1))
    heartbeat.start()
    with closing(os.fdopen(reading, "rb", buffering=0)) as output:
        pulse = Pulse(output)
        pulse.look()
        assert pulse.silent_looks == 1
        os.write(held, b".")
        _look_until_heard(pulse)


_BUSY = """
import sys
from pathlib import Path
from tallystick.plumbing.embedded.clickhouse import ChdbEndpoint
endpoint = ChdbEndpoint(Path(sys.argv[1]), key="key")
endpoint.start()
taken = [endpoint._connections.get() for _ in range(endpoint._connections.qsize())]
endpoint.ask()
for connection in taken:
    endpoint._connections.put(connection)
endpoint.stop()
"""


def test_chdb_answers_while_requests_have_all_of_its_connections(tmp_path: Path) -> None:
    """A busy engine does not hang. In a process of its own: chDB has one folder in each."""
    program = [sys.executable, "-c", _BUSY, str(tmp_path / "chdb")]
    subprocess.run(program, timeout=_DEADLINE_SECONDS, check=True)


def _look_until_heard(pulse: Pulse) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while True:
        pulse.look()
        if not pulse.silent_looks:
            return
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_where_clickhouse_hangs_the_ledger_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness and statistics wait for it in threads of their own."""
    monkeypatch.setenv("TALLYSTICK_ENGINE_SILENT_SECONDS", "0")
    server = Server(tmp_path / "data").start()
    server.client.put("/v1/accounts/calm", json={"tenant_id": "calm"}).raise_for_status()
    (hung,) = _engines(server)
    with ThreadPoolExecutor(24) as askers:
        hung.suspend()
        try:
            asked = [
                askers.submit(_ask, server, "/v1/stats" if number % 2 else "/readyz")
                for number in range(24)
            ]
            for _ in range(20):  # while they arrive, and when all of them wait
                balance = server.client.get("/v1/accounts/calm/balance")
                assert balance.json()["available"] == "0"
                time.sleep(0.1)
            assert not any(one.done() and one.result() == 200 for one in asked)
        finally:
            hung.resume()
    server.wait_until_ready()
    assert server.stop() == 0


def _ask(server: Server, path: str) -> int:
    with suppress(httpx.HTTPError):
        key = server.client.headers["Authorization"]
        url = f"{str(server.client.base_url).rstrip('/')}{path}"
        return httpx.get(url, headers={"Authorization": key}, timeout=60).status_code
    return 0
