"""Broken messages over HTTP: listed without content, fixed once, dismissed, replayed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tallystick.events.schemas import build_schemas
from tests.server import Server, event


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("broken") / "data").start()
    yield running
    assert running.stop() == 0


def wait_for_facts(server: Server) -> None:
    """Wait for facts and rollups: runs that are still open are charged later."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        report = server.get("/v1/freshness")
        lag = sum(one["lag_events"] for one in report["followers"] if one["name"] != "archiver")
        if not report["difference"] and not lag:
            return
        time.sleep(0.05)
    raise AssertionError(server.get("/v1/freshness"))


def send(server: Server, *messages: Any) -> list[dict[str, Any]]:
    """Send messages, wait until they are facts, return the tenant's broken ones."""
    server.client.post("/v1/events", json=list(messages)).raise_for_status()
    wait_for_facts(server)
    found: list[dict[str, Any]] = server.get(
        "/v1/broken-messages", tenant_id=messages[0]["tenant_id"]
    )["broken_messages"]
    return found


def fix(server: Server, broken_id: str, **changes: Any) -> httpx.Response:
    return server.client.post(f"/v1/broken-messages/{broken_id}/fix", json={"set": changes})


def test_a_broken_message_is_listed_fixed_counted_once_and_charged(server: Server) -> None:
    message = event(tenant_id="one", tokens_input="a secret text", note="Mia Li, 4111 1111")
    (broken,) = send(server, message)
    (broken,) = send(server, message)
    assert (broken["code"], broken["field"]) == ("wrong_type", "tokens_input")
    assert broken["reason"] == "tokens_input must be a whole number"
    assert (broken["times_seen"], broken["status"]) == (2, "open")
    assert broken["draft"]["tokens_output"] == 250
    assert broken["draft"]["tokens_input"].startswith("hmac:")
    assert "Mia" not in json.dumps(broken)
    refused = fix(server, broken["broken_id"])
    assert (refused.status_code, refused.json()["code"]) == (422, "hidden_field")
    refused = fix(server, broken["broken_id"], tokens_input=-3)
    assert (refused.status_code, refused.json()["field"]) == (422, "tokens_input")
    assert server.get("/v1/stats", tenant_id="one", interval="none")["rows"][0]["calls"] == 0
    answers = [fix(server, broken["broken_id"], tokens_input=1200) for _ in range(2)]
    assert [answer.json()["outcome"] for answer in answers] == ["accepted", "duplicate"]
    wait_for_facts(server)
    assert server.get("/v1/stats", tenant_id="one")["rows"][0]["calls"] == 1
    shown = server.get(f"/v1/broken-messages/{broken['broken_id']}")
    assert (shown["status"], shown["event_id"], shown["changed_by"]) == ("fixed", "e1", "admin")
    assert [action["outcome"] for action in shown["actions"]] == ["accepted", "duplicate"]
    assert shown["actions"][0]["fields"] == ["tokens_input"]
    assert server.get("/v1/runs/r1", tenant_id="one")["timeline"][0]["tokens_input"] == 1200
    assert server.get("/v1/verification")["holds"]


def test_a_fix_is_what_the_producer_would_have_sent(server: Server) -> None:
    """So a corrected retry of the producer is a duplicate of the fix, and the other way round."""
    good = event(tenant_id="two", attrs={"region": "eu-1", "note": "free text"}, extra=0.25)
    (broken,) = send(server, {**good, "event_time": good["event_time"][:-1]})
    assert broken["code"] == "naive_time"
    answer = fix(server, broken["broken_id"], event_time=good["event_time"])
    assert answer.json()["outcome"] == "accepted"
    receipt = server.client.post("/v1/events", json=good).json()
    assert (receipt["accepted"], receipt["duplicates"], receipt["rejected"]) == (0, 1, [])


def test_one_message_never_becomes_two_events(server: Server) -> None:
    (broken,) = send(server, event(tenant_id="three", attempt=0))
    assert fix(server, broken["broken_id"], attempt=1).json()["outcome"] == "accepted"
    again = fix(server, broken["broken_id"], attempt=1, event_id="another")
    assert (again.status_code, again.json()["code"]) == (409, "already_fixed")
    other = fix(server, broken["broken_id"], attempt=2)
    assert (other.status_code, other.json()["code"]) == (409, "event_id_conflict")
    dismissed = server.client.post(
        f"/v1/broken-messages/{broken['broken_id']}/dismiss", json={"reason": "late"}
    )
    assert (dismissed.status_code, dismissed.json()["code"]) == (409, "already_fixed")
    moved = fix(server, broken["broken_id"], tenant_id="four")
    assert (moved.status_code, moved.json()["code"]) == (422, "tenant_is_known")


def test_a_conflict_leaves_the_message_open(server: Server) -> None:
    server.client.post("/v1/events", json=event(tenant_id="five", tokens_output=1))
    (broken,) = send(server, event(tenant_id="five", attempt=0))
    answer = fix(server, broken["broken_id"], attempt=1)
    assert (answer.status_code, answer.json()["code"]) == (409, "event_id_conflict")
    assert server.get(f"/v1/broken-messages/{broken['broken_id']}")["status"] == "open"
    renamed = fix(server, broken["broken_id"], attempt=1, event_id="e1-mended")
    assert (renamed.status_code, renamed.json()["event_id"]) == (200, "e1-mended")


def test_what_could_not_be_decoded_can_only_be_dismissed(server: Server) -> None:
    body = b'{"tenant_id":"six","prompt":"tell nobody" nonsense}'
    server.client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
    wait_for_facts(server)
    page = server.get("/v1/broken-messages", code="invalid_json")["broken_messages"]
    (broken,) = page
    assert (broken["tenant_id"], broken["draft"]) == ("unknown", None)
    answer = fix(server, broken["broken_id"], event_id="x")
    assert (answer.status_code, answer.json()["code"]) == (422, "not_decodable")
    path = f"/v1/broken-messages/{broken['broken_id']}/dismiss"
    assert server.client.post(path, json={"reason": ""}).json()["code"] == "bad_reason"
    assert server.client.post(path, json={"reason": "a test"}).json()["status"] == "dismissed"
    assert server.client.post(path, json={"reason": "again"}).status_code == 200
    shown = server.get(f"/v1/broken-messages/{broken['broken_id']}")
    assert (shown["status"], shown["dismissed_because"]) == ("dismissed", "again")
    assert [action["kind"] for action in shown["actions"]] == ["dismiss", "dismiss"]


def test_many_are_fixed_with_one_change_after_a_dry_run(server: Server) -> None:
    good = [event(tenant_id="many", event_id=f"m{number}", attempt=0) for number in range(7)]
    hidden = event(tenant_id="many", event_id="m7", attempt=0, run_id="two words")
    assert len(send(server, *good, hidden)) == 8
    body = {"code": "out_of_range", "tenant_id": "many", "set": {"attempt": 1}}
    path = "/v1/broken-messages:fix"
    tried = server.client.post(path, json={**body, "dry_run": True}).json()
    assert (tried["examined"], tried["repairable"], tried["fixed"]) == (8, 7, 0)
    assert (tried["still_broken"][0]["code"], tried["still_broken"][0]["count"]) == (
        "hidden_field",
        1,
    )
    assert tried["samples"][0]["event"]["run_id"] == "r1"
    assert len(tried["samples"]) == 5
    done = server.client.post(path, json=body).json()
    assert (done["fixed"], done["duplicates"], done["conflicts"]) == (7, 0, 0)
    again = server.client.post(path, json=body).json()
    assert (again["examined"], again["fixed"]) == (1, 0), "only what is still open"
    wait_for_facts(server)
    assert server.get("/v1/stats", tenant_id="many")["rows"][0]["calls"] == 7
    one_id = {**body, "set": {"event_id": "x"}}
    assert server.client.post(path, json=one_id).json()["code"] == "not_for_many"


def test_the_list_is_filtered_and_paged(server: Server) -> None:
    send(server, *(event(tenant_id="pages", event_id=f"p{n}", attempt=0) for n in range(5)))
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        more = {"cursor": cursor} if cursor else {}
        page = server.get("/v1/broken-messages", tenant_id="pages", limit=2, **more)
        seen += [broken["broken_id"] for broken in page["broken_messages"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen)) == 5
    fix(server, seen[0], attempt=1).raise_for_status()
    still = server.get("/v1/broken-messages", tenant_id="pages", status="open", limit=3)
    assert [broken["broken_id"] for broken in still["broken_messages"]] == seen[1:4]
    none = server.get("/v1/broken-messages", tenant_id="pages", to="2020-01-01T00:00:00Z")
    assert none == {"broken_messages": [], "next_cursor": None}
    since = server.get("/v1/broken-messages", tenant_id="pages", **{"from": "2020-01-01T00:00:00Z"})
    assert len(since["broken_messages"]) == 5


PROBLEMS: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/v1/broken-messages?colour=red", None, 400, "unknown_parameter"),
    ("GET", "/v1/broken-messages?cursor=abc", None, 400, "bad_cursor"),
    ("GET", "/v1/broken-messages?status=lost", None, 400, "invalid_input"),
    ("GET", "/v1/broken-messages/none", None, 404, "unknown_broken_message"),
    ("POST", "/v1/broken-messages/none/fix", {"set": {}}, 404, "unknown_broken_message"),
    ("POST", "/v1/broken-messages/none/dismiss", {"reason": "x"}, 404, "unknown_broken_message"),
    ("POST", "/v1/broken-messages:fix", {"code": ""}, 400, "invalid_input"),
    ("POST", "/v1/broken-messages:fix", {}, 400, "bad_body"),
    ("GET", "/v1/schemas/none", None, 404, "unknown_schema"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), PROBLEMS)
def test_problems_have_a_code(
    server: Server, method: str, path: str, body: Any, status: int, code: str
) -> None:
    answer = server.client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_schemas_are_served_and_newer_versions_counted(server: Server) -> None:
    newer = event(tenant_id="newer", schema_version=9, mood="fine words of a person")
    assert send(server, newer) == []
    listed = server.get("/v1/schemas")
    assert "event.schema.json" in listed["schemas"]
    seen = {row["schema_version"]: row for row in listed["seen_last_day"]}
    assert (seen[9]["events"], seen[9]["is_newer"]) == (1, True)
    assert not seen[1]["is_newer"]
    assert server.get("/v1/schemas/event.schema.json") == build_schemas()["event.schema.json"]
    assert server.get("/v1/schemas/asyncapi.yaml")["asyncapi"] == "3.0.0"
    (fact,) = server.get("/v1/runs/r1", tenant_id="newer")["timeline"]
    assert fact["attrs"]["mood"].startswith("hmac:")


def test_the_command_line_does_the_same(server: Server) -> None:
    first, second = send(
        server, *(event(tenant_id="cli", event_id=f"c{n}", attempt=0) for n in range(2))
    )

    def run(*arguments: str) -> Any:
        command = [sys.executable, "-m", "tallystick.cli.main", "broken", *arguments]
        done = subprocess.run(
            [*command, "--data", str(server.folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    assert "out_of_range" in run("list", "--tenant", "cli")
    assert run("show", first["broken_id"], "--json")["status"] == "open"
    tried = run("fix", "--code", "out_of_range", "--tenant", "cli", "--set", "attempt=1",
                "--dry-run", "--json")  # fmt: skip
    assert tried["repairable"] == 2
    assert "fixed" in run("fix", first["broken_id"], "--set", "attempt=1")
    assert "dismissed" in run("dismiss", second["broken_id"], "--reason", "a test")
    assert "nothing" in run("list", "--tenant", "cli", "--status", "open")


def test_the_page_lists_and_fixes_behind_the_login(server: Server) -> None:
    (broken,) = send(server, event(tenant_id="page", tokens_input="who knows"))
    key = (server.folder / "admin.key").read_text().strip()
    path = f"/broken/{broken['broken_id']}"
    with httpx.Client(base_url=server.client.base_url, follow_redirects=True) as browser:
        assert "Log in to Tallystick" in browser.get("/broken").text
        browser.post("/login", data={"key": key})
        assert broken["broken_id"] in browser.get("/broken?tenant_id=page").text
        page = browser.get(path).text
        assert "who knows" not in page
        token = page.partition('name="form_token" value="')[2].partition('"')[0]
        fields = {"action": "fix", "set.tokens_input": "1200"}
        assert browser.post(path, data=fields).status_code == 403
        wrong = browser.post(path, data={**fields, "form_token": token, "set.tokens_input": "x"})
        assert (wrong.status_code, "must be a whole number" in wrong.text) == (422, True)
        done = browser.post(path, data={**fields, "form_token": token})
        assert (done.status_code, "fixed" in done.text) == (200, True)
    wait_for_facts(server)
    assert server.get("/v1/stats", tenant_id="page")["rows"][0]["tokens_input"] == 1200
