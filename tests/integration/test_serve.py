"""One running server: contract, errors, health, and the life of the process tree."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest
from starlette.types import Receive, Scope, Send

from tallystick.api import server as api_server
from tallystick.plumbing.embedded.child import user_namespaces_allowed
from tests.server import Server, event


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("serve") / "data").start()
    yield running
    assert running.stop() == 0, "SIGTERM drains and exits 0"


def test_from_event_to_charge_over_http(server: Server) -> None:
    post, get = server.client.post, server.get
    server.client.put("/v1/accounts/acme", json={"tenant_id": "acme"}).raise_for_status()
    grant = {"account_id": "acme", "amount": "10", "idempotency_key": "g1"}
    first = post("/v1/grants", json=grant)
    assert first.status_code == 201
    assert post("/v1/grants", json=grant).json() == first.json()
    messages = [
        event(event_id="s", event_type="run_started"),
        event(),
        event(event_id="t", event_type="tool_call_finished", tool="search", error_code="boom"),
        event(event_id="d", event_type="run_completed"),
    ]
    assert post("/v1/events", json=messages).json() == {
        "accepted": 4,
        "duplicates": 0,
        "rejected": [],
    }
    receipt = post("/v1/events", json=[*messages, event(tokens_input=1)]).json()
    assert (receipt["accepted"], receipt["duplicates"]) == (0, 4)
    assert receipt["rejected"][0]["code"] == "event_id_conflict"
    server.wait_until_settled()
    (row,) = get("/v1/stats", tenant_id="acme")["rows"]
    assert (row["runs"], row["calls"], row["tool_calls"], row["errors"]) == (1, 1, 1, 1)
    assert (row["cost_usd"], row["credits"], row["error_rate"]) == ("0.0055", "0.66", 0.5)
    (most,) = get("/v1/stats", tenant_id="acme", group_by="model", top=1, top_by="credits")["rows"]
    assert (most["model"], most["credits"]) == ("gpt-4o", "0.66")
    story = get("/v1/runs/r1")
    assert story["status"] == "completed"
    assert story["charge"]["charged"] == "0.66"
    assert story["counts"] == {"events": 4, "late": 0, "duplicates": 4, "conflicts": 1}
    assert [fact["event_type"] for fact in story["timeline"]][1] == "token_usage"
    assert get("/v1/accounts/acme/balance")["available"] == "9.34"
    charges = [
        entry for entry in get("/v1/accounts/acme/entries")["entries"] if entry["run_id"] == "r1"
    ]
    assert [entry["amount"] for entry in charges] == ["-0.66"]
    late = event(event_id="late", event_time="2026-01-01T00:00:00+02:00")
    assert post("/v1/events", json=late).json()["accepted"] == 1
    server.wait_until_settled()
    story = get("/v1/runs/r1")
    assert story["counts"]["late"] == 1
    assert story["charge"]["charged"] == "1.32"
    assert len(story["ledger_operations"]) == 2
    assert get("/v1/runs", tenant_id="acme", status="completed")["runs"][0]["run_id"] == "r1"


def test_an_error_rate_leads_to_its_runs(server: Server) -> None:
    """The filters of events hold for one event together: this tool with this error."""
    tool = {"event_type": "tool_call_finished", "tenant_id": "drill"}
    messages = [
        event(**tool, event_id="1", run_id="bad", tool="search", error_code="timeout"),
        event(**tool, event_id="2", run_id="bad", tool="mail"),
        event(**tool, event_id="3", run_id="good", tool="search"),
    ]
    server.client.post("/v1/events", json=messages).raise_for_status()
    server.wait_until_settled()

    def runs(**filters: str) -> list[str]:
        page = server.get("/v1/runs", tenant_id="drill", **filters)
        return sorted(run["run_id"] for run in page["runs"])

    assert runs(tool="search") == ["bad", "good"]
    assert runs(tool="search", error_code="*") == runs(error_code="timeout") == ["bad"]
    assert runs(tool="mail", error_code="timeout") == []
    start = event(tenant_id="drill", event_id="4", run_id="bad", event_type="run_started")
    start["event_time"] = "2026-01-01T00:00:00Z"
    error = {"tool": "search", "error_code": "*"}
    hour = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00Z"}
    server.client.post("/v1/events", json=[start]).raise_for_status()
    server.wait_until_settled()
    assert runs(**error, **{"from": messages[0]["event_time"]}) == ["bad"], "by the error's time"
    assert runs(**error, **hour) == []
    assert runs(**hour) == ["bad"], "by the run's start"
    attempts = server.get("/v1/runs/bad", tenant_id="drill")["attempts"]
    assert [attempt["attempt"] for attempt in attempts] == [1]


PROBLEMS = [
    ("GET", "/v1/nothing", None, 404, "not_found"),
    ("DELETE", "/v1/stats", None, 405, "method_not_allowed"),
    ("GET", "/v1/stats?group_by=colour", None, 400, "unknown_dimension"),
    ("GET", "/v1/stats?metrics=beauty", None, 400, "unknown_metric"),
    ("GET", "/v1/stats?group_by=user&top=many", None, 400, "bad_top"),
    ("GET", "/v1/stats?group_by=user&top=1001", None, 400, "bad_top"),
    ("GET", "/v1/stats?top=5", None, 400, "bad_top"),
    ("GET", "/v1/stats?group_by=user&top=5&top_by=beauty", None, 400, "unknown_metric"),
    ("GET", "/v1/stats?colour=red", None, 400, "unknown_parameter"),
    ("GET", "/v1/stats?interval=week", None, 400, "unknown_interval"),
    ("GET", "/v1/stats?from=2026-01-01T00:00:00", None, 400, "naive_time"),
    ("GET", "/v1/runs?colour=red", None, 400, "unknown_filter"),
    ("GET", "/v1/runs?cursor=abc", None, 400, "bad_cursor"),
    ("GET", "/v1/runs?status=asleep", None, 400, "invalid_input"),
    ("GET", "/v1/runs/none", None, 404, "unknown_run"),
    ("GET", "/v1/accounts/none/balance", None, 404, "unknown_account"),
    ("POST", "/v1/grants", {"account_id": "acme", "amount": "1"}, 400, "key_missing"),
    ("POST", "/v1/grants", {"account_id": "acme", "amount": 1.5}, 400, "bad_body"),
    ("POST", "/v1/grants", {"account_id": "acme", "amount": "1.0000001", "idempotency_key": "x"},
     400, "amount_too_precise"),
    ("POST", "/v1/charges", {"account_id": "none", "amount": "1", "idempotency_key": "x"},
     404, "unknown_account"),
    ("POST", "/v1/refunds", {"charge_id": "zz", "idempotency_key": "x"}, 404, "unknown_charge"),
    ("POST", "/v1/rate-cards/credits/versions",
     {"kind": "credit", "effective_at": "2026-01-01T00:00:00Z", "content": {"token_markup": 3}},
     400, "bad_rate_card"),
    ("POST", "/v1/rate-cards/nan/versions",
     {"kind": "credit", "effective_at": "2026-01-01T00:00:00Z", "tenant_id": "nan",
      "content": {"runtime_credits_per_second": "NaN"}}, 400, "bad_rate_card"),
    ("POST", "/v1/rate-cards/vast/versions",
     {"kind": "cost", "effective_at": "2026-01-01T00:00:00Z", "tenant_id": "vast",
      "content": {"providers": [{"id": "p", "models": [{"id": "m", "match": {"equals": "m"},
                  "prices": [{"rates": {"input": "1e30"}}]}]}]}}, 400, "bad_rate_card"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), PROBLEMS)
def test_problems_have_a_code(
    server: Server, method: str, path: str, body: Any, status: int, code: str
) -> None:
    server.client.put("/v1/accounts/acme", json={"tenant_id": "acme"}).raise_for_status()
    answer = server.client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_whole_bodies_that_cannot_be_used(server: Server) -> None:
    post = server.client.post
    json_type = {"Content-Type": "application/json"}
    assert post("/v1/events", content=b"{", headers=json_type).status_code == 400
    assert post("/v1/events", content=b" " * 10**7, headers=json_type).status_code == 413
    gzipped = {**json_type, "Content-Encoding": "gzip"}
    answer = post("/v1/events", content=b"not gzip", headers=gzipped)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_compression")
    xml = {"Content-Type": "text/xml"}
    assert post("/v1/events", content=b"<a/>", headers=xml).status_code == 415


def test_a_decline_is_a_402_that_is_replayed(server: Server) -> None:
    server.client.put("/v1/accounts/poor", json={"tenant_id": "poor"}).raise_for_status()
    body = {"account_id": "poor", "amount": "1", "idempotency_key": "c"}
    answers = [server.client.post("/v1/charges", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [402, 402]
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["decided_by"] == "account:poor"


def test_every_route_wants_a_key_but_health(server: Server) -> None:
    with httpx.Client(base_url=server.client.base_url) as bare:
        _assert_key_is_wanted(server, bare)


def _assert_key_is_wanted(server: Server, bare: httpx.Client) -> None:
    document = bare.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation.get("security") == []:  # gives out tokens, or public keys
                continue
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
                answer = bare.request(method.upper(), path, headers=headers)
                assert answer.status_code == 401, (method, path)
    assert bare.get("/healthz").status_code == 200
    assert bare.get("/readyz").json()["ready"]
    assert bare.get("/metrics").status_code == 401
    assert "tallystick_follower_lag_events" in server.client.get("/metrics").text
    for page in ("/", "/runs", "/runs/r1"):
        assert bare.get(page).status_code == 303
    assert bare.post("/login", data={"key": "wrong"}).status_code == 401


def test_the_dashboard_opens_after_login(server: Server) -> None:
    key = (server.folder / "admin.key").read_text().strip()
    url = server.client.base_url
    with httpx.Client(base_url=url, follow_redirects=True, timeout=60) as browser:
        page = browser.post("/login", data={"key": key})
        assert page.status_code == 200
        assert "Credits burned" in page.text
        hour = browser.get("/", params={"range": "1h", "tenant": "nobody"}).text
        assert "no calls" in hour and "unknown" in hour and "0 ms" not in hour
        assert "data-chart" not in hour
        assert "unsafe-inline" not in page.headers["content-security-policy"]
        for path in ("/runs", "/budgets", "/alerts", "/broken", "/audit"):
            page = browser.get(path)
            assert page.status_code == 200 and f'"{path}" aria-current="page"' in page.text
        assert browser.get("/static/charts.js").status_code == 200


def test_the_folder_is_private_and_owned_by_one(server: Server) -> None:
    mode = stat.S_IMODE((server.folder / "admin.key").stat().st_mode)
    assert mode == 0o600
    assert Server(server.folder).spawn().wait(timeout=60) == 2
    assert "is in use by process" in server.log.read_text()
    assert server.client.get("/readyz").status_code == 200


def test_the_command_line_asks_the_running_server(server: Server) -> None:
    server.client.post("/v1/events", json=event(tenant_id="cli", run_id="cli-run"))
    server.wait_until_settled()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tallystick.cli.main", *arguments]
            + ["--data", str(server.folder)],
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("verify").returncode == 0
    assert "cli-run of cli" in run("trace", "cli-run").stdout
    assert run("trace", "none").returncode == 2
    assert "in use" in run("replay").stderr


def test_ids_may_hold_any_printable_character(server: Server) -> None:
    run = "a/b c%2F\"<é>?#&='"
    server.client.post("/v1/events", json=event(tenant_id=run, run_id=run)).raise_for_status()
    server.client.post("/v1/events", json=event(tenant_id="@revenue")).raise_for_status()
    report = server.wait_until_settled()
    assert report["difference"] == 0
    path = quote(run, safe="")
    assert server.get(f"/v1/runs/{path}", tenant_id=run)["charge"]["charged"] == "0.66"
    assert server.get(f"/v1/accounts/{path}/balance")["available"] == "-0.66"
    assert server.get("/v1/stats", tenant_id="@revenue")["rows"][0]["credits"] == "0.66"
    assert server.get("/v1/verification")["holds"]


def test_a_dead_postgres_is_started_again(server: Server) -> None:
    (postgres,) = [
        one for one in server.tree() if "postgres" in one.name() and "-D" in one.cmdline()
    ]
    postgres.kill()
    postgres.wait(30)
    server.wait_until_ready()
    answer = server.client.post("/v1/events", json=event(tenant_id="lazarus", run_id="p"))
    assert answer.json()["accepted"] == 1
    server.wait_until_settled()
    assert server.get("/v1/verification")["holds"]


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_a_dead_engine_is_started_again(server: Server, death: signal.Signals) -> None:
    """Killed, or crashed in native code: chDB would keep a crashed process as it is."""
    (engine,) = [one for one in server.tree() if "tallystick.workers.engine" in one.cmdline()]
    engine.send_signal(death)
    engine.wait(30)
    tenant = f"phoenix-{death}"
    server.client.post("/v1/events", json=event(tenant_id=tenant, run_id="p"))
    server.wait_until_ready()
    server.wait_until_settled()
    (row,) = server.get("/v1/stats", tenant_id=tenant)["rows"]
    assert row["calls"] == 1
    assert server.get("/v1/verification")["holds"]


def test_requests_are_answered_while_a_dead_engine_is_started_again(server: Server) -> None:
    """However long that takes: here it is stopped in the middle of its start."""

    def engine() -> list[psutil.Process]:
        return [one for one in server.tree() if "tallystick.workers.engine" in one.cmdline()]

    (dead,) = engine()
    dead.kill()
    dead.wait(30)
    deadline = time.monotonic() + 60
    while not (found := engine()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    found[0].suspend()
    try:
        assert server.client.get("/healthz").status_code == 200
        assert server.client.post("/v1/events", json=event(tenant_id="w")).status_code == 200
    finally:
        found[0].resume()
    server.wait_until_ready()


def test_what_tends_the_stores_fails_once_and_goes_on() -> None:
    tended: list[int] = []

    def tend() -> None:
        tended.append(len(tended))
        if len(tended) == 1:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        os.kill(os.getpid(), signal.SIGTERM)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (asked := (await receive())["type"]) != "lifespan.shutdown":
            await send({"type": f"{asked}.complete"})
        await send({"type": f"{asked}.complete"})

    before = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        api_server.run(app, api_server.bind("127.0.0.1", 0), on_ready=lambda: None, tend=tend)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
    assert len(tended) >= 2


@pytest.mark.skipif(
    os.geteuid() == 0 and not user_namespaces_allowed(),
    reason="root may not become an ordinary user here",
)
def test_it_runs_as_an_ordinary_user_too(data_folder: Path) -> None:
    """As root, every other test runs it as root; here its process sees an ordinary uid."""
    server = Server(data_folder, is_ordinary=True).start()
    uids = {one.uids().effective for one in server.tree()}
    assert len(uids) == 1
    status = Path(f"/proc/{server.tree()[0].pid}/uid_map").read_text().split()
    assert os.geteuid() != 0 or status[0] != "0"
    server.client.post("/v1/events", json=event(tenant_id="u")).raise_for_status()
    assert server.wait_until_settled()["facts"] == 1
    assert server.stop() == 0
