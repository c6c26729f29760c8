"""The audit trail: every request, durable changes and denials, sealed, without content."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tallystick.audit import SEALED, AuditTrail, Record
from tallystick.clock import SystemClock
from tallystick.ledger.seals import Seals
from tallystick.plumbing.postgres import make_async_pool, open_pool
from tests.server import Server, event


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("audit") / "data").start()
    yield running
    assert running.stop() == 0


def records(server: Server, **filters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/v1/audit", limit=1000, **filters)["records"]
    return found


def wait_for(server: Server, **filters: Any) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := records(server, **filters):
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no record of {filters}")


def test_a_change_is_on_record_before_it_is_answered(server: Server) -> None:
    server.client.put("/v1/accounts/a1", json={"tenant_id": "acme"}).raise_for_status()
    (record,) = records(server, route="/v1/accounts/{account_id}")
    told = {name: record[name] for name in ("subject", "method", "target", "status", "decision")}
    assert told == {
        "subject": "admin",
        "method": "PUT",
        "target": "a1",
        "status": 200,
        "decision": "allowed",
    }


def test_reads_and_busy_routes_are_recorded_a_moment_later(server: Server) -> None:
    server.get("/v1/freshness")
    server.client.post("/v1/events", json=[event()]).raise_for_status()
    assert wait_for(server, route="/v1/freshness")["decision"] == "allowed"
    assert wait_for(server, route="/v1/events")["method"] == "POST"


def test_a_path_that_cannot_be_stored_stops_no_record(server: Server) -> None:
    for name in ("a%00b", "line%0D%0Abreak", "%ff%fe"):
        answer = server.client.get(f"/v1/accounts/{name}/balance")
        assert answer.status_code in (400, 404), answer.text
    server.client.put("/v1/accounts/after", json={"tenant_id": "acme"}).raise_for_status()
    targets = {one["target"] for one in records(server, route="/v1/accounts/{account_id}/balance")}
    assert "a\N{REPLACEMENT CHARACTER}b" in targets


def test_a_denial_says_why(server: Server) -> None:
    server.client.put("/v1/accounts/a2", json={"tenant_id": "acme"}).raise_for_status()
    body = {"account_id": "a2", "amount": "1", "idempotency_key": "k"}
    assert server.client.post("/v1/charges", json=body).status_code == 402
    record = wait_for(server, decision="denied", route="/v1/charges")
    assert record["code"] == "credit_exhausted"


def test_guesses_of_a_key_are_folded(server: Server) -> None:
    url = str(server.client.base_url)
    for _ in range(30):
        assert httpx.get(f"{url}/v1/runs").status_code == 401
    deadline = time.monotonic() + 30
    counted = 0
    while counted < 30 and time.monotonic() < deadline:
        time.sleep(0.2)
        server.get("/healthz")
        counted = sum(one["requests"] for one in records(server, route="/v1/runs"))
    found = records(server, route="/v1/runs")
    assert counted == 30
    assert len(found) < 10
    assert {one["code"] for one in found} == {"unauthorized"}


def test_no_content_is_on_record(server: Server) -> None:
    canary = "canary-7f3a9c"
    server.client.post("/v1/grants", json={"account_id": canary, "amount": canary})
    server.client.post("/v1/events", content=canary, headers={"x-canary": canary})
    wait_for(server, route="/v1/grants")
    assert canary not in json.dumps(records(server))


def test_the_trail_is_written_out_as_lines(server: Server) -> None:
    answer = server.client.get("/v1/audit", params={"format": "ndjson", "limit": 2})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert len(lines) == 2
    assert answer.headers["X-Next-Cursor"] == str(lines[-1]["record_id"])
    command = [sys.executable, "-m", "tallystick.cli.main", "audit", "--data", str(server.folder)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert len(done.stdout.splitlines()) >= 5


def test_a_record_cannot_be_changed_unseen(postgres_url: str) -> None:
    """The table refuses; and what its owner forces through, the seals name."""
    insert = (
        "INSERT INTO audit.record (at, tenant_id, subject, service_id, cost_center, method, route,"
        " target, status, decision, code, remote, requests, duration_us) VALUES"
        " (1, '', 'admin', '', '', 'PUT', '/v1/x', 'x', 200, 'allowed', '', '', 1, 1)"
    )
    pool = open_pool(postgres_url, connections_max=2)
    seals = Seals(pool, SystemClock(), [SEALED])
    with psycopg.connect(postgres_url) as connection:
        connection.execute(insert)
    assert seals.count_unsealed() == 1
    assert seals.seal_all() == 1
    assert not seals.verify()
    assert seals.count_unsealed() == 0
    with psycopg.connect(postgres_url) as connection:
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation), connection.transaction():
            connection.execute("UPDATE audit.record SET subject = 'nobody'")
        connection.execute("ALTER TABLE audit.record DISABLE TRIGGER ALL")
        connection.execute("UPDATE audit.record SET subject = 'nobody'")
    (violation,) = seals.verify()
    assert "audit/1 was changed" in violation.examples[0]
    pool.close()


def test_a_record_that_cannot_be_written_holds_up_no_other(postgres_url: str) -> None:
    pool = open_pool(postgres_url, connections_max=1)
    trail = AuditTrail(pool, make_async_pool(postgres_url, connections=1))
    good = Record(5, "spoilt", "admin", "", "", "PUT", "/v1/x", "", 200, "allowed", "", "", 1, 1)

    async def write() -> None:
        await trail.open()
        for status in (200, 100_000, 201):
            trail.note(good._replace(status=status))
        await trail.write(good._replace(status=204))
        await trail.close()

    asyncio.run(write())
    found = trail.search(
        tenant_id="spoilt", from_at=0, to_at=10, before=2**62, limit=10, filters={}
    )
    assert [one["status"] for one in found] == [204, 201, 200]
    pool.close()
