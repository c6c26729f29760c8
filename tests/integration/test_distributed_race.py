"""A limit raced over HTTP: two API processes of the distributed form, one killed in the middle.

Whoever loses the process that it asked repeats the same key at the other one. In the end every
ask has one answer, and exactly as many were let through as the budget has room for.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import httpx

from tests.distributed import Cluster
from tests.kafka_brokers import Brokers

_ROOM = 10
_ASKS = 80
_KILLED_AFTER = 8


def test_a_budget_is_not_raced_by_two_processes(
    tmp_path: Path, postgres_url: str, kafka_broker: Brokers
) -> None:
    topic = f"race-{os.getpid()}"
    cluster = Cluster(
        tmp_path, postgres_url, kafka_broker.bootstrap, topic, TALLYSTICK_KAFKA_PARTITIONS="2"
    )
    try:
        first = cluster.api("first")
        first.put("/v1/accounts/acme", json={"tenant_id": "acme"}).raise_for_status()
        grant = {"account_id": "acme", "amount": "1000", "idempotency_key": "g"}
        first.post("/v1/grants", json=grant).raise_for_status()
        cap = {"tenant_id": "acme", "asset": "USD", "amount": str(Decimal("0.02") * _ROOM)}
        scope = {"window": "day", "scope": {"team": "search"}}
        first.put("/v1/budgets/race", json={**cap, **scope}).raise_for_status()
        clients = [first, cluster.api("second")]

        def ask(number: int) -> int:
            if number == _KILLED_AFTER:
                cluster.kill("second")
            body = {
                "account_id": "acme",
                "amount": "1",
                "cost_usd": "0.02",
                "attribution": {"team": "search"},
                "idempotency_key": f"ask-{number}",
            }
            try:
                return clients[number % 2].post("/v1/holds", json=body).status_code
            except httpx.TransportError:
                return first.post("/v1/holds", json=body).status_code

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, range(_ASKS)))
        assert (answers.count(201), answers.count(402)) == (_ROOM, _ASKS - _ROOM), answers
        asked = first.get("/v1/budgets/race/windows", params={"tenant_id": "acme"})
        (window,) = asked.json()["windows"]
        assert Decimal(window["held"]) == Decimal("0.02") * _ROOM
        assert Decimal(first.get("/v1/accounts/acme/balance").json()["held"]) == _ROOM
    finally:
        cluster.stop()
