"""Holds, captures, batches, leases and the live balance over HTTP, on a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest

from tallystick.sdk import HttpLeases, LeasedCredit
from tests.server import Server

_serial = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("ledger") / "data").start()
    yield made
    assert made.stop() == 0


@pytest.fixture
def account(server: Server) -> str:
    return opened(server, "100")


def opened(server: Server, amount: str, **settings: Any) -> str:
    name = f"http-{next(_serial)}"
    body = {"tenant_id": f"tenant-{name}", **settings}
    server.client.put(f"/v1/accounts/{name}", json=body).raise_for_status()
    grant = {"account_id": name, "amount": amount, "idempotency_key": "g"}
    server.client.post("/v1/grants", json=grant).raise_for_status()
    return name


def post(server: Server, path: str, key: str = "", **body: Any) -> httpx.Response:
    return server.client.post(path, json=body | {"idempotency_key": key or f"k{next(_serial)}"})


def balance(server: Server, account: str) -> dict[str, Any]:
    found: dict[str, Any] = server.get(f"/v1/accounts/{account}/balance")
    return found


def test_hold_capture_and_what_is_free_again(server: Server, account: str) -> None:
    attribution = {"team": "search", "feature": "answers"}
    made = post(
        server, "/v1/holds", account_id=account, amount="12.5", run_id="r1",
        cost_usd="0.01", tokens=900, attribution=attribution,
    )  # fmt: skip
    assert made.status_code == 201
    hold = made.json()
    assert hold["status"] == "held"
    assert hold["lots"][0]["amount"] == "12.5"
    assert hold["expires_at"].endswith("Z")
    assert balance(server, account)["held"] == "12.5"
    path = f"/v1/holds/{hold['hold_id']}"
    captured = post(server, path + "/capture", "c1", amount="9.25").json()
    assert (captured["captured"], captured["shortfall"]) == ("9.25", "0")
    assert post(server, path + "/capture", "c1", amount="9.25").json() == captured
    assert post(server, path + "/capture", "c1", amount="9").json()["code"] == (
        "idempotency_conflict"
    )
    assert post(server, path + "/capture", amount="1").json()["code"] == "hold_captured"
    assert post(server, path + "/release").json()["code"] == "hold_captured"
    assert server.get(path)["status"] == "captured"
    shown = balance(server, account)
    assert (shown["available"], shown["held"], shown["captured"]) == ("90.75", "0", "9.25")
    refund = post(server, "/v1/refunds", charge_id=captured["charge_id"], amount="0.25")
    assert refund.status_code == 201
    assert balance(server, account)["available"] == "91"


def test_a_decline_names_what_decided_and_is_remembered(server: Server, account: str) -> None:
    declined = post(server, "/v1/holds", "d", account_id=account, amount="100.000001")
    assert declined.status_code == 402
    problem = declined.json()
    assert problem["code"] == "credit_exhausted"
    assert problem["decided_by"] == f"account:{account}"
    assert (problem["available"], problem["retry"]) == ("100", "never")
    post(server, "/v1/grants", account_id=account, amount="50")
    again = post(server, "/v1/holds", "d", account_id=account, amount="100.000001")
    assert again.json() == problem


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"amount": "0"}, "amount_not_positive"),
        ({"amount": "-1"}, "amount_not_positive"),
        ({"amount": "0.0000001"}, "amount_too_precise"),
        ({"amount": "99999999999999999"}, "amount_too_large"),
        ({"amount": "1", "account_id": "nobody"}, "unknown_account"),
        ({"amount": "1", "ttl_seconds": 0}, "bad_ttl"),
        ({"amount": "1", "idempotency_key": "x" * 129}, "key_too_long"),
        ({"amount": "1", "idempotency_key": ""}, "key_missing"),
        ({"amount": 1.5}, "bad_body"),
        ({"amount": "1", "attribution": {"team": "x" * 129}}, "invalid_input"),
    ],
)
def test_bad_input_has_a_stable_code(
    server: Server, account: str, body: dict[str, Any], code: str
) -> None:
    answer = server.client.post(
        "/v1/holds", json={"account_id": account, "idempotency_key": "bad", **body}
    )
    assert answer.status_code in (400, 404)
    assert answer.json()["code"] == code
    for path in ("/v1/holds/nothing/capture", f"/v1/holds/{'0' * 32}/capture"):
        assert post(server, path, amount="1").json()["code"] == "unknown_hold"


def test_many_callers_at_once_share_commits_and_never_pass_the_limit(server: Server) -> None:
    account = opened(server, "50")

    def hold(number: int) -> int:
        body = {"account_id": account, "amount": "1", "idempotency_key": f"n{number % 80}"}
        return server.client.post("/v1/holds", json=body).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(hold, range(160)))
    assert statuses.count(201) == 100, "50 holds, each asked for twice"
    assert balance(server, account)["available"] == "0"


def test_batches(server: Server, account: str) -> None:
    items: list[dict[str, Any]] = [
        {"account_id": account, "amount": "10", "idempotency_key": f"b{number}"}
        for number in range(12)
    ]
    items[3]["amount"] = "none"
    items[4] = {"amount": "1"}
    answer = server.client.post("/v1/holds:batch", json={"items": items})
    results = answer.json()["results"]
    assert [one.get("code", one["status"]) for one in results] == (
        ["held"] * 3 + ["amount_not_decimal", "bad_item"] + ["held"] * 7
    )
    captures = [
        {"hold_id": one["hold_id"], "amount": "1", "idempotency_key": "c"}
        for one in results
        if "hold_id" in one
    ]
    done = server.client.post("/v1/captures:batch", json={"items": captures}).json()["results"]
    assert {one["captured"] for one in done} == {"1"}
    assert balance(server, account)["available"] == "90"
    whole = [{"account_id": account, "amount": "60", "idempotency_key": f"w{n}"} for n in "ab"]
    body = {"items": whole, "all_or_nothing": True}
    codes = [one["code"] for one in server.client.post("/v1/holds:batch", json=body).json()[
        "results"
    ]]  # fmt: skip
    assert codes == ["batch_declined", "credit_exhausted"]
    assert balance(server, account)["held"] == "0"
    assert server.client.post("/v1/holds:batch", json={"items": []}).json()["code"] == (
        "batch_too_large"
    )


def test_a_hold_that_runs_out_frees_itself_unless_it_started(server: Server) -> None:
    account = opened(server, "10")
    post(server, "/v1/holds", account_id=account, amount="4", ttl_seconds=1)
    body: dict[str, Any] = {"account_id": account, "amount": "5", "ttl_seconds": 1}
    body["started"] = True
    started = post(server, "/v1/holds", **body).json()
    path = f"/v1/holds/{started['hold_id']}"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.get(path)["status"] != "unknown":
        time.sleep(0.1)
    assert server.get(path)["status"] == "unknown"
    shown = balance(server, account)
    assert (shown["available"], shown["held"]) == ("5", "5")
    metrics = server.client.get("/metrics").text
    assert 'tallystick_ledger_open_holds{kind="hold",status="unknown"} ' in metrics
    assert "tallystick_ledger_holds_overdue_seconds" in metrics
    assert post(server, path + "/capture", amount="2").json()["captured"] == "2"
    assert balance(server, account)["available"] == "8"


def test_a_lease_through_the_sdk(server: Server, account: str) -> None:
    leases = HttpLeases(
        str(server.client.base_url), server.client.headers["Authorization"].split()[1]
    )
    credit = LeasedCredit(leases, account, block_units=40_000_000)
    assert balance(server, account)["leased"] == "40"
    permit = credit.authorize(15_000_000)
    assert permit is not None
    credit.settle(permit, 12_000_000)
    assert credit.sync()
    shown = balance(server, account)
    assert (shown["captured"], shown["leased"], shown["available"]) == ("12", "40", "48")
    credit.close()
    leases.close()
    shown = balance(server, account)
    assert (shown["captured"], shown["leased"], shown["available"]) == ("12", "0", "88")


def test_the_balance_streams_while_it_changes(server: Server, account: str) -> None:
    seen: list[dict[str, Any]] = []
    path = f"/v1/accounts/{account}/balance/stream"

    def watch() -> None:
        with (
            httpx.Client(base_url=server.client.base_url, headers=server.client.headers) as client,
            client.stream("GET", path, timeout=20) as stream,
        ):
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:]))
                if seen and seen[-1]["held"] == "7":
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    deadline = time.monotonic() + 20
    while not seen and time.monotonic() < deadline:
        time.sleep(0.05)
    post(server, "/v1/holds", account_id=account, amount="7")
    watcher.join(20)
    assert [seen[0]["available"], seen[-1]["available"]] == ["100", "93"]
    assert server.client.get("/v1/accounts/nobody/balance/stream").status_code == 404


def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tallystick.cli.main", *arguments, "--data", str(server.folder)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_drift_is_located_and_repaired_by_an_operation(server: Server, account: str) -> None:
    """A row that somebody changed by hand: named, located, set right, and on the record."""
    post(server, "/v1/charges", account_id=account, amount="4")
    agreed = command(server, "reconcile", "ledger")
    assert agreed.returncode == 0, agreed.stdout
    line = next(one.cmdline() for one in server.tree() if "-k" in one.cmdline())
    url = f"postgresql://tallystick@/tallystick?host={line[line.index('-k') + 1]}"
    with psycopg.connect(url, autocommit=True) as connection:
        change = "UPDATE ledger.balance SET credited = credited + 5 WHERE account_id = %s"
        connection.execute(change.encode(), (account,))
    found = command(server, "reconcile", "ledger", "--json")
    assert found.returncode == 1
    (difference,) = json.loads(found.stdout)["differences"]
    assert (difference["area"], difference["where"]) == ("balance", account)
    assert difference["first_bad"] == f"after {account}/3"
    assert (difference["found"]["credited"] - difference["expected"]["credited"]) == 5
    command(server, "reconcile", "ledger", "--repair")
    assert command(server, "reconcile", "ledger").returncode == 0
    assert balance(server, account)["available"] == "96"
    verified = command(server, "verify", "--ledger", "--json")
    answer = json.loads(verified.stdout)
    assert (verified.returncode, answer["violations"]) == (0, [])
    head = answer["seal_head"]
    assert command(server, "verify", "--ledger", "--expect-head", head).returncode == 0
    assert command(server, "verify", "--ledger", "--expect-head", "0" * 64).returncode == 1
