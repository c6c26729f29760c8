"""Backfills as people ask for them: over HTTP and by CLI, on a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.backfills import cost_card
from tests.server import Server

pytestmark = pytest.mark.slow
_RANGE = {"from": "2026-01-01T00:00:00Z", "to": "2030-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("backfills") / "data").start()
    yield running
    running.stop()


def _cli(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tallystick.cli.main", *arguments]
    return subprocess.run(
        [*command, "--data", str(server.folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "160"},
        check=False,
    )


def _price(server: Server, per_million: str) -> None:
    body = {
        "kind": "cost",
        "tenant_id": "acme",
        "effective_at": "2020-01-01T00:00:00Z",
        "content": cost_card(per_million),
    }
    assert server.client.post("/v1/rate-cards/acme-prices/versions", json=body).is_success


def _cost(server: Server) -> Decimal:
    server.wait_until_settled()
    rows = server.get("/v1/stats", tenant_id="acme")["rows"]
    return Decimal(rows[0]["cost_usd"])


def _becomes(server: Server, cost: str) -> bool:
    """Wait for the rollups, which follow the facts within a second or so."""
    deadline = time.monotonic() + 30
    while _cost(server) != Decimal(cost) and time.monotonic() < deadline:
        time.sleep(0.1)
    return _cost(server) == Decimal(cost)


def test_a_price_is_set_right_and_back(server: Server) -> None:
    _price(server, "1")
    now = server.get("/v1/freshness")["at"]
    events = [
        {"event_id": f"e{number}", "event_type": "token_usage", "event_time": now,
         "tenant_id": "acme", "run_id": f"r{number % 7}", "provider": "p", "model": "m",
         "tokens_input": 1000}
        for number in range(100)
    ]  # fmt: skip
    assert server.client.post("/v1/events", json=events).json()["accepted"] == 100
    assert _becomes(server, "0.1")
    _price(server, "3")

    asked = {**_RANGE, "reason": "wrong since Monday", "tenant_ids": ["acme"]}
    dry = _cli(
        server, "backfill", "run", "--from", _RANGE["from"], "--to", _RANGE["to"], "--tenant",
        "acme", "--reason", "a look", "--dry-run",
    )  # fmt: skip
    assert dry.returncode == 0, dry.stderr
    assert "100 of 100 events would be corrected, 7 runs" in dry.stdout
    assert "0.1 -> 0.3" in dry.stdout
    assert _becomes(server, "0.1")

    answer = server.client.post("/v1/backfills", json={**asked, "idempotency_key": "fix-1"})
    assert answer.status_code == 201
    again = server.client.post("/v1/backfills", json={**asked, "idempotency_key": "fix-1"})
    assert again.json()["backfill_id"] == answer.json()["backfill_id"]
    done = _wait(server, answer.json()["backfill_id"])
    assert done["progress"]["corrected"] == 100
    assert done["report"]["by_tenant_and_model"][0]["cost_usd"] == {
        "before": "0.1",
        "after": "0.3",
        "difference": "0.2",
    }
    assert _becomes(server, "0.3")
    assert server.get("/v1/verification")["holds"]
    run = server.get("/v1/runs/r1", tenant_id="acme")
    assert run["timeline"][0]["corrected_by"] == done["backfill_id"]

    undo = _cli(server, "backfill", "revert", done["backfill_id"], "--reason", "no", "--json")
    assert undo.returncode == 0, undo.stderr
    assert json.loads(undo.stdout)["progress"]["corrected"] == 100
    assert _becomes(server, "0.1")
    assert server.get("/v1/verification")["holds"]
    listed = server.get("/v1/backfills")["backfills"]
    assert [one["status"] for one in listed] == ["done", "reverted", "done"]
    assert "wrong since Monday" in _cli(server, "backfill", "list").stdout
    assert "0.1 -> 0.3" in _cli(server, "backfill", "show", done["backfill_id"]).stdout
    assert _cli(server, "backfill", "pause", done["backfill_id"]).returncode == 2


def _wait(server: Server, backfill_id: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = server.get(f"/v1/backfills/{backfill_id}")
        if found["status"] not in ("planned", "running"):
            return found


def test_refusals_are_problems(server: Server) -> None:
    post = server.client.post
    assert post("/v1/backfills", json={**_RANGE}).json()["code"] == "bad_body"
    body = {**_RANGE, "reason": "r", "idempotency_key": "k", "rate_card_version": 99}
    answer = post("/v1/backfills", json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_rate_card_version")
    assert server.client.get("/v1/backfills/none").status_code == 404
    assert post("/v1/backfills/none/revert", json={"reason": "r"}).status_code == 404
    for wrong in ({"from": "monday"}, {"from": _RANGE["to"]}, {"reason": ""}):
        refused = post("/v1/backfills", json={**_RANGE, "reason": "r", **wrong})
        assert refused.status_code == 400, refused.text


def test_events_are_reconciled(server: Server) -> None:
    answer = server.client.post("/v1/reconciliations/events", json={"repair": True})
    assert answer.json() == {
        "agrees": True,
        "doubles": 0,
        "has_more": False,
        "examples": [],
        "reversed_rows": 0,
        "lagging": False,
    }
    found = _cli(server, "reconcile", "events", "--repair")
    assert (found.returncode, found.stdout) == (0, "every event counts once\n")


def test_a_rebuild_keeps_corrections(server: Server, tmp_path: Path) -> None:
    before = _cost(server)
    server.stop()
    replayed = _cli(server, "replay")
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    server.start()
    assert _cost(server) == before
    assert server.get("/v1/verification")["holds"]
