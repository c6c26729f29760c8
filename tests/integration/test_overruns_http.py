"""Overrun response over HTTP on a real `tallystick serve`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server import Server, event


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("data")).start()
    yield started
    assert started.stop() == 0


def test_a_mitigation_from_its_beginning_to_its_undo(server: Server) -> None:
    body = {
        "tenant_id": "acme",
        "scope": {"key": "key_1"},
        "step": "kill",
        "reason": "a loop in the nightly import",
        "ttl_seconds": 600,
    }
    headers = {"Idempotency-Key": "stop-1"}
    made = server.client.post("/v1/mitigations", json=body, headers=headers)
    assert made.status_code == 201, made.text
    again = server.client.post("/v1/mitigations", json=body, headers=headers)
    assert again.json() == made.json()
    mitigation_id = made.json()["mitigation_id"]
    in_force = server.get("/v1/mitigations", active="true", tenant_id="acme")["mitigations"]
    assert [one["mitigation_id"] for one in in_force] == [mitigation_id]
    assert server.get("/v1/mitigations", tenant_id="globex")["mitigations"] == []
    undone = server.client.delete(f"/v1/mitigations/{mitigation_id}")
    assert undone.json()["ended_at"] is not None
    events = server.get(f"/v1/mitigations/{mitigation_id}")["events"]
    assert [one["kind"] for one in events] == ["applied", "undone"]


@pytest.mark.parametrize(
    "change",
    [
        {"tenant_id": ""},
        {"step": "alert"},
        {"step": "explode"},
        {"ttl_seconds": 0},
        {"reason": ""},
        {"scope": {"colour": "red"}},
        {"scope": {"key": "a\0b"}},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_a_problem(server: Server, change: dict[str, object]) -> None:
    body = {"tenant_id": "acme", "step": "block", "reason": "why", "ttl_seconds": 60, **change}
    answer = server.client.post("/v1/mitigations", json=body)
    assert answer.status_code == 400, answer.text


def test_policies_and_launches_are_kept_by_tenant(server: Server) -> None:
    policy = {"tenant_id": "acme", "scope": {"key": "*"}, "steps": [{"step": "throttle"}]}
    assert server.client.put("/v1/mitigation-policies", json=policy).status_code == 200
    assert len(server.get("/v1/mitigation-policies", tenant_id="acme")["policies"]) == 1
    assert server.get("/v1/mitigation-policies", tenant_id="globex")["policies"] == []
    launch = {
        "tenant_id": "acme",
        "scope": {"feature": "chat"},
        "from": "2098-11-20T09:00:00Z",
        "to": "2098-11-21T09:00:00Z",
        "expected_factor": "3",
        "reason": "launch in Spain",
    }
    made = server.client.post("/v1/planned-launches", json=launch)
    assert made.status_code == 201, made.text
    assert len(server.get("/v1/planned-launches", tenant_id="acme")["planned_launches"]) == 1
    path = f"/v1/planned-launches/{made.json()['launch_id']}"
    assert server.client.delete(path).json()["withdrawn_at"] is not None
    assert server.get("/v1/planned-launches", tenant_id="acme")["planned_launches"] == []
    for wrong in ({"expected_factor": "NaN"}, {"expected_factor": "1"}, {"to": launch["from"]}):
        assert server.client.post("/v1/planned-launches", json=launch | wrong).status_code == 400


def test_drivers_add_up(server: Server) -> None:
    sent = [event(event_id=f"e{number}", run_id=f"r{number}") for number in range(3)]
    server.client.post("/v1/events", json=sent).raise_for_status()
    server.wait_until_settled()
    body = {
        "tenant_id": "acme",
        "compare_from": "2020-01-01T00:00:00Z",
        "compare_to": "2020-01-02T00:00:00Z",
        "from": "2020-01-02T00:00:00Z",
        "to": "2099-01-02T00:00:00Z",
    }
    answer = server.client.post("/v1/drivers", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    total = server.get("/v1/stats", tenant_id="acme")["rows"][0]["cost_usd"]
    assert found["difference_usd"] == found["effects"]["volume"] == total
    assert server.get("/v1/overruns", tenant_id="acme")["overruns"] == []
    assert server.client.get("/v1/overruns/none").status_code == 404
