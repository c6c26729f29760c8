"""kill -9 at random points during ingest: nothing acknowledged is lost, nothing counts twice.

TALLYSTICK_KILL_ROUNDS sets how often (make soak raises it).
"""

from __future__ import annotations

import os
import random
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from tallystick.clock import SystemClock, format_time
from tests.server import Server

ROUNDS = int(os.environ.get("TALLYSTICK_KILL_ROUNDS", "4"))
REQUESTS = 60
EVENTS = 200


def _requests() -> list[list[dict[str, Any]]]:
    now = SystemClock().now()
    return [
        [
            {
                "event_id": f"{number}-{serial}",
                "event_type": "token_usage",
                "event_time": format_time(now - serial * 1_000_000),
                "tenant_id": "acme",
                "run_id": f"run-{serial % 40}",
                "provider": "openai",
                "model": "gpt-4o",
                "tokens_input": 100,
                "tokens_output": 10,
            }
            for serial in range(EVENTS)
        ]
        for number in range(REQUESTS)
    ]


class _Sender(threading.Thread):
    """Sends every request until it is acknowledged, through outages, two at a time."""

    def __init__(self, holder: dict[str, Server], requests: list[list[dict[str, Any]]]) -> None:
        super().__init__(daemon=True)
        self.holder = holder
        self.requests = requests
        self.accepted = self.duplicates = 0
        self.acknowledged = 0

    def run(self) -> None:
        for request in self.requests:
            while True:
                try:
                    answer = self.holder["server"].client.post("/v1/events", json=request)
                    if answer.status_code == 200:
                        break
                except (httpx.HTTPError, RuntimeError):
                    pass
                time.sleep(0.05)
            receipt = answer.json()
            assert not receipt["rejected"]
            self.accepted += receipt["accepted"]
            self.duplicates += receipt["duplicates"]
            self.acknowledged += 1


def test_kill_at_random_points_during_ingest(data_folder: Path) -> None:
    rng = random.Random(os.environ.get("TALLYSTICK_KILL_SEED", "7"))
    server = Server(data_folder).start()
    holder = {"server": server}
    requests = _requests()
    senders = [_Sender(holder, requests[start::2]) for start in (0, 1)]
    for sender in senders:
        sender.start()
    for kill in range(ROUNDS):
        goal = REQUESTS * (kill + 1) // (ROUNDS + 1)
        while sum(sender.acknowledged for sender in senders) < goal:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        orphans = server.kill()
        server = Server(data_folder).start()
        holder["server"] = server
        assert not [one for one in orphans if one.is_running() and one.status() != "zombie"]
    for sender in senders:
        sender.join(120)
        assert not sender.is_alive()
    _assert_exact(server)
    assert server.stop() == 0


def _assert_exact(server: Server) -> None:
    report = server.wait_until_settled()
    total = REQUESTS * EVENTS
    assert report["facts"] == total
    (row,) = server.get("/v1/stats", **{"from": "2020-01-01T00:00:00Z"})["rows"]
    assert row["calls"] == total
    assert row["tokens_input"] == total * 100
    assert Decimal(row["cost_usd"]) == total * Decimal("0.00035")
    assert Decimal(row["credits"]) == total * Decimal("0.042")
    assert row["runs"] == 40
    balance = server.get("/v1/accounts/acme/balance")
    assert Decimal(balance["available"]) == -total * Decimal("0.042")
    assert server.get("/v1/verification")["violations"] == []
