"""Quotas of a real `tallystick serve`: by HTTP, reconciled with analytics, rebuilt by the CLI."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server, event

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("vault") / "data").start()
    events = [event(event_id=f"e{n}", user_id=f"u{n % 3}", project_id="p") for n in range(30)]
    assert made.client.post("/v1/events", json=events + events[:5]).status_code == 200
    made.wait_until_settled()
    yield made
    made.stop()


def command(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tallystick.cli.main", *arguments]
        + ["--data", str(folder), "--json"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_quotas_by_http(server: Server) -> None:
    whole = server.get("/v1/quotas", tenant_id="acme")
    assert whole["spent"]["requests"] == 30
    assert whole["spent"]["cost_usd"] == "0.165"
    assert whole["quotas"] == []
    assert server.get("/v1/quotas", tenant_id="acme", user_id="u1")["spent"]["requests"] == 10
    assert server.get("/v1/quotas", tenant_id="nobody")["spent"]["requests"] == 0
    past = {"from": "2020-01-01T00:00:00Z", "to": "2020-02-01T00:00:00Z"}
    assert server.get("/v1/quotas", tenant_id="acme", **past)["spent"]["requests"] == 0


@pytest.mark.parametrize(
    "query", [{}, {"tenant_id": "a", "colour": "red"}, {"tenant_id": "a", "from": "yesterday"}]
)
def test_what_is_wrong_is_named(server: Server, query: dict[str, str]) -> None:
    answer = server.client.get("/v1/quotas", params=query)
    assert answer.status_code in (400, 422)
    assert answer.json()["code"]


def test_the_vault_is_a_follower(server: Server) -> None:
    followers = {one["name"]: one for one in server.get("/v1/freshness")["followers"]}
    assert followers["vault"]["lag_events"] == 0
    assert followers["vault"]["position"] == followers["sink"]["position"] == 35


def test_reconciled_by_http_and_by_the_command(server: Server) -> None:
    report = server.client.post("/v1/reconciliations/quotas", json={"tenant_id": "acme"}).json()
    assert report["agrees"] and report["is_settled"] and report["compared"] == 3
    assert report["vault_usd"] == report["analytics_usd"] == "0.165"
    assert command(server.folder, "reconcile", "quotas")["agrees"]


def test_a_replay_of_the_vault_gives_the_same_bytes(server: Server) -> None:
    """The server stops for it, and comes back."""
    server.stop()
    answer = command(server.folder, "replay", "--vault")
    assert answer["same"] and answer["rows"] == 3 and answer["before"] == answer["after"]
    server.start()
    assert server.get("/v1/quotas", tenant_id="acme")["spent"]["requests"] == 30
