"""The hold of a call that the gateway makes is the gateway's to end, though its caller knows it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.gateway.place import Place, ask

BODY: dict[str, Any] = {"model": "gpt-4o", "stream": True, "max_tokens": 200}
ENDINGS: dict[str, dict[str, Any]] = {
    "/v1/authorizations/{}/settle": {"usage": {}},
    "/v1/authorizations/{}/cancel": {},
    "/v1/authorizations/{}/extend": {"tokens_output": 1},
    "/v1/holds/{}/capture": {"amount": "0"},
    "/v1/holds/{}/release": {},
    "/v1/holds/{}/start": {},
    "/v1/holds/{}/extend": {"ttl_seconds": 1},
    "/v1/leases/{}/extend": {"ttl_seconds": 1, "epoch": 0},
}


def caller_of(place: Place, account: str, *roles: str) -> httpx.Client:
    """Who has a key of the tenant with these roles."""
    body = {"name": "app", "tenant_id": "acme", "roles": roles, "account_id": account}
    made = place.server.client.post("/v1/api-keys", json=body)
    made.raise_for_status()
    headers = {"Authorization": f"Bearer {made.json()['key']}", "Idempotency-Key": "end"}
    return httpx.Client(base_url=place.url, headers=headers, timeout=60)


@pytest.mark.parametrize("role", ["service", "engineer"])
def test_a_caller_cannot_end_the_hold_of_its_own_stream(place: Place, role: str) -> None:
    account = place.account(f"thief-{role}", "10")
    body = {**BODY, "messages": ask("#slow rate=60 in=20 out=90#")}
    headers = {"X-Tallystick-Run": f"thief-{role}"}
    with (
        caller_of(place, account, role) as caller,
        caller.stream("POST", "/openai/v1/chat/completions", json=body, headers=headers) as stream,
    ):
        hold = stream.headers["x-tallystick-hold"]
        refused = [caller.post(path.format(hold), json=said) for path, said in ENDINGS.items()]
        captures = {"items": [{"hold_id": hold.upper(), "amount": "0", "idempotency_key": "b"}]}
        batch = caller.post("/v1/captures:batch", json=captures).json()
        text = stream.read()
    assert [(one.status_code, one.json()["code"]) for one in refused] == [
        (403, "call_of_gateway")
    ] * len(ENDINGS)
    assert [one["code"] for one in batch["results"]] == ["call_of_gateway"]
    assert text.endswith(b"data: [DONE]\n\n")
    assert place.has_no_hold(account)
    assert place.usage(f"thief-{role}") == (20, 90, 0, "exact")
    assert Decimal(place.balance(account)["captured"]) > 0


def test_who_may_write_the_ledger_may_end_a_call_that_is_stuck(place: Place) -> None:
    account = place.account("stuck", "10")
    body = {**BODY, "messages": ask("#slow rate=60 in=20 out=60#")}
    with (
        caller_of(place, account, "admin") as admin,
        admin.stream("POST", "/openai/v1/chat/completions", json=body) as stream,
    ):
        hold = stream.headers["x-tallystick-hold"]
        assert admin.post(f"/v1/authorizations/{hold}/cancel", json={}).status_code == 200
        stream.read()


def test_a_caller_settles_a_call_that_it_makes_itself(place: Place) -> None:
    account = place.account("own-calls", "10")
    asked = {"provider": "openai", "model": "gpt-4o", "tokens_input": 10, "tokens_output_max": 10}
    with caller_of(place, account, "service") as caller:
        made = caller.post("/v1/authorizations", json={**asked, "is_gateway": True})
        assert made.status_code == 201, made.text
        path = f"/v1/authorizations/{made.json()['authorization_id']}/settle"
        assert caller.post(path, json={"usage": {"tokens_input": 10}}).status_code == 200
        caller.headers["Idempotency-Key"] = "hold"
        held = caller.post("/v1/holds", json={"account_id": account, "amount": "1"}).json()
        path = f"/v1/holds/{held['hold_id']}/capture"
        assert caller.post(path, json={"amount": "1"}).status_code == 200
