"""kill -9 under calls: what clients were told is what was charged; the rest is listed.

Real `tallystick serve`, several clients over HTTP that authorize, "call a provider" (the
usage follows from the number of the call) and settle. The server is killed at random
points. Each client keeps what the provider says it used: afterwards that is the sum of
charges, to the unit. Clients that give up a call leave it unknown, and it is listed.
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

from tests.server import Server

ROUNDS = int(os.environ.get("TALLYSTICK_KILL_ROUNDS", "2"))
CLIENTS = 4
CALLS = 45
MODEL = {"provider": "openai", "model": "gpt-4o"}


def usage_of(client: int, number: int) -> dict[str, int]:
    """What the scripted provider says that a call used."""
    return {
        "tokens_input": 100 + 7 * number + client,
        "tokens_output": 10 + number,
        "tokens_cache_read": number,
    }


def worth(usage: dict[str, int]) -> tuple[int, Decimal]:
    """(USD/9, credits) by hand: gpt-4o is 2.5, 1.25 cached, 10 USD a million; 120 credits a USD.

    In nano-dollars a token these are whole numbers, so nothing is rounded.
    """
    plain = usage["tokens_input"] - usage["tokens_cache_read"]
    nanos = plain * 2_500 + usage["tokens_cache_read"] * 1_250 + usage["tokens_output"] * 10_000
    return nanos, Decimal(nanos) * 120 / 10**9


class Client(threading.Thread):
    """Makes calls, some in a shared run; tries each step until the answer is definite."""

    def __init__(self, holder: dict[str, Server], number: int) -> None:
        super().__init__(daemon=True)
        self.holder = holder
        self.number = number
        self.done = 0
        self.told_nanos = 0
        self.told_credits = Decimal(0)
        self.real_nanos = 0
        self.real_credits = Decimal(0)
        self.given_up: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for number in range(CALLS):
                self._call(number)
                self.done += 1
        except BaseException as error:
            self.failure = error

    def _call(self, number: int) -> None:
        key = f"k{self.number}-{number}"
        run_id = f"shared-{self.number}" if number % 3 == 0 else ""
        permit = self._post(
            "/v1/authorizations",
            {
                **MODEL,
                "tokens_input": 1000,
                "tokens_output_max": 200,
                "account_id": "acme",
                "run_id": run_id,
                "attribution": {"feature": "kill"},
                "ttl_seconds": 3600,
                "idempotency_key": key,
            },
        )
        hold_id = permit["authorization_id"]
        if number == 5:  # the caller dies before its provider answers
            self.given_up.append(hold_id)
            return
        usage = usage_of(self.number, number)
        nanos, credits_ = worth(usage)
        receipt = self._post(
            f"/v1/authorizations/{hold_id}/settle", {"usage": usage, "idempotency_key": key}
        )
        self.told_nanos += int(Decimal(receipt["cost_usd"]) * 10**9)
        self.told_credits += Decimal(receipt["credits"])
        self.real_nanos += nanos
        self.real_credits += credits_

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                answer = self.holder["server"].client.post(path, json=body, timeout=10)
                if answer.status_code < 300:
                    found: dict[str, Any] = answer.json()
                    return found
                assert answer.status_code >= 500, answer.text
            except (httpx.HTTPError, RuntimeError):
                pass
            time.sleep(0.05)
        raise AssertionError(f"no definite answer to {path}")


def test_what_clients_were_told_is_what_is_charged(data_folder: Path) -> None:
    rng = random.Random(os.environ.get("TALLYSTICK_KILL_SEED", "11"))
    server = Server(data_folder).start()
    server.client.put("/v1/accounts/acme", json={"tenant_id": "acme"}).raise_for_status()
    grant = {"account_id": "acme", "amount": "1000", "source": "topup", "idempotency_key": "g"}
    server.client.post("/v1/grants", json=grant).raise_for_status()
    holder = {"server": server}
    clients = [Client(holder, number) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    for kill in range(ROUNDS):
        goal = CLIENTS * CALLS * (kill + 1) // (ROUNDS + 1)
        while sum(client.done for client in clients) < goal:
            assert all(client.failure is None for client in clients), clients
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        server.kill()
        server = Server(data_folder).start()
        holder["server"] = server
    for client in clients:
        client.join(180)
        assert client.failure is None and not client.is_alive()
    _assert_exact(server, clients)
    assert server.stop() == 0


def _assert_exact(server: Server, clients: list[Client]) -> None:
    nanos = sum(client.real_nanos for client in clients)
    credits_ = sum((client.real_credits for client in clients), Decimal(0))
    assert sum(client.told_nanos for client in clients) == nanos
    assert sum((client.told_credits for client in clients), Decimal(0)) == credits_
    server.wait_until_settled()
    (row,) = server.get("/v1/stats", **{"from": "2020-01-01T00:00:00Z", "tenant_id": "acme"})[
        "rows"
    ]
    given_up = sorted(hold_id for client in clients for hold_id in client.given_up)
    assert row["calls"] == CLIENTS * CALLS - len(given_up)
    assert int(Decimal(row["cost_usd"]) * 10**9) == nanos
    assert Decimal(row["credits"]) == credits_
    # the calls that were given up are listed, and are all that is still held
    found = server.get("/v1/authorizations", tenant_id="acme")["authorizations"]
    assert sorted(one["authorization_id"] for one in found) == given_up
    held = sum((Decimal(one["credits"]) for one in found), Decimal(0))
    _wait_for_balance(server, held, 1000 - credits_)
    assert server.get("/v1/verification")["violations"] == []
    # whoever finds one of them can still settle it: it is charged then, once
    usage = usage_of(0, 0)
    for _ in range(2):
        settled = server.client.post(
            f"/v1/authorizations/{given_up[0]}/settle", json={"usage": usage}
        )
        settled.raise_for_status()
    left = held - Decimal(found[0]["credits"])
    _wait_for_balance(server, left, 1000 - credits_ - worth(usage)[1])


def _wait_for_balance(server: Server, held: Decimal, in_all: Decimal) -> None:
    """Runs of several calls converge once their facts have landed."""
    deadline = time.monotonic() + 30
    while True:
        balance = server.get("/v1/accounts/acme/balance")
        seen = Decimal(balance["held"]), Decimal(balance["available"]) + Decimal(balance["held"])
        if seen == (held, in_all):
            return
        assert time.monotonic() < deadline, (seen, held, in_all)
        time.sleep(0.1)
