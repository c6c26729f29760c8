"""Rate limits over HTTP: set, told by headers, refused as a problem, undone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("rates") / "data").start()
    yield running
    running.stop()


def test_a_limit_is_told_enforced_and_undone(server: Server) -> None:
    client = server.client
    assert "ratelimit-limit" not in client.get("/v1/accounts").headers
    made = client.put("/v1/rate-limits", json={"kind": "global", "per_minute": 6, "burst": 2})
    limit_id = made.json()["limit_id"]
    assert "ratelimit-limit" not in made.headers
    told = client.get("/v1/accounts")
    assert told.status_code == 200
    headers = {name: told.headers[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")}
    assert headers == {"limit": "6", "remaining": "1", "reset": "10"}
    assert told.headers["ratelimit-policy"] == "6;w=60;burst=2"
    client.get("/v1/accounts")
    refused = client.get("/v1/accounts")
    assert refused.status_code == 429
    problem = refused.json()
    assert (problem["code"], problem["retryable"]) == ("rate_limited", True)
    assert problem["decided_by"] == f"rate_limit:{limit_id}"
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert refused.headers["ratelimit-remaining"] == "0"
    assert client.post("/v1/holds", json={}).status_code == 429
    listed = client.get("/v1/rate-limits").json()["rate_limits"]
    assert [one["limit_id"] for one in listed] == [limit_id]
    assert client.delete(f"/v1/rate-limits/{limit_id}").status_code == 200
    assert client.get("/v1/accounts").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "planet", "per_minute": 1},
        {"kind": "global", "per_minute": 0},
        {"kind": "global", "per_minute": 1, "tenant_id": "acme"},
        {"kind": "key", "per_minute": 1, "name": "k"},
        {"kind": "key", "per_minute": 1, "tenant_id": "acme"},
        {"kind": "global", "per_minute": 1, "asset": "stars"},
        {"kind": "global", "per_minute": 1, "weight": 0},
        {"kind": "global", "per_minute": 1, "burst": 10**10},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(server: Server, body: dict[str, object]) -> None:
    answer = server.client.put("/v1/rate-limits", json=body)
    assert answer.status_code == 400, answer.text
