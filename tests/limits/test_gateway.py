"""Limits before a gateway call: cheaper models, kill switches, rates, and what is on record."""

from __future__ import annotations

from functools import partial
from typing import Any

import httpx

from tests.limits.scene import Scene, Tenant, wait_for

MODEL, REASON = "x-tallystick-model", "x-tallystick-downgraded-by"


def model_of(answer: httpx.Response) -> tuple[str, str]:
    assert answer.status_code == 200, answer.text
    return answer.headers[MODEL], answer.headers.get(REASON, "")


def test_a_threshold_goes_down_the_ladder_before_the_cap(scene: Scene, tenant: Tenant) -> None:
    down = [{"at": 0.8, "action": "downgrade"}]
    tenant.budget("cap", scope={"team": "search"}, amount="0.1", thresholds=down)
    assert model_of(tenant.chat()) == ("gpt-4o", "")
    tenant.send(*[{} for _ in range(14)])
    tenant.wait_used("cap", "0.0825")
    wait_for(lambda: model_of(tenant.chat("#normal in=10 out=5#"))[1], seconds=5)
    assert model_of(tenant.chat("#normal in=10 out=5#")) == ("gpt-4o-mini", "budget:cap")
    with tenant.admin.stream(
        "POST",
        "/openai/v1/chat/completions",
        json={
            "model": "gpt-4o",
            "stream": True,
            "messages": [{"role": "user", "content": "#normal in=10 out=5#"}],
        },
        headers={**tenant.headers, "X-Tallystick-Team": "search"},
    ) as answer:
        answer.read()
    assert model_of(answer) == ("gpt-4o-mini", "budget:cap")


def test_a_refusal_goes_down_the_ladder_too(scene: Scene, tenant: Tenant) -> None:
    tenant.budget("dear", scope={"model": "gpt-4o"}, amount="0.0001")
    assert model_of(tenant.chat()) == ("gpt-4o-mini", "budget:dear")
    # Gemini stands above it, and cannot be told of this field
    biased = tenant.chat(model="some-model", logit_bias={"7": 1})
    assert model_of(biased) == ("gpt-4o-mini", "budget:dear")


def test_a_call_that_has_ended_refuses_no_other(scene: Scene, tenant: Tenant) -> None:
    """There is room for one call at a time: neither its next attempt nor the next call waits."""
    tenant.budget("tight", scope={"team": "search"}, amount="0.004")
    for number in range(6):
        mark = f"#overloaded times=1 key={tenant.name}-{number} in=10 out=5#"
        assert model_of(tenant.chat(mark)) == ("gpt-4o", "")
    wait_for(lambda: tenant.quota("tight", team="search")["held"] == "0")
    assert tenant.used("tight") == "0.00045"  # six answers at 0.000075


def test_what_refused_a_call_is_told_whole(scene: Scene, tenant: Tenant) -> None:
    """Every limit that it fell under, of its team, its key and its run, and which decided."""
    tenant.budget("team", scope={"team": "search"}, amount="0.00001")
    tenant.budget("ads", scope={"team": "ads"}, amount="0.00001")
    tenant.budget("key", scope={"key": "*"}, amount="5")
    tenant.post("/v1/run-budgets", run_id="small", amount="0.00001", tenant_id=tenant.name)
    ours = {"decided_by": "budget:team", "limits": {"account", "team", "key"}}
    run = {"decided_by": f"limit:run:{tenant.name}/small", "limits": {"account", "key", "run"}}
    for team, headers, expected in (
        ("search", {}, ours),
        ("other", {"X-Tallystick-Run": "small"}, run),
    ):
        refused = tenant.chat(model="gpt-4o-mini", headers={"X-Tallystick-Team": team, **headers})
        assert refused.status_code == 402, refused.text
        why = scene.server.get(f"/v1/refusals/{refused.json()['error']['operation_id']}")
        assert why["decided_by"] == why["now"]["decided_by"] == expected["decided_by"]
        names = [one["decided_by"].removeprefix("limit:").split(":") for one in why["limits"]]
        assert {name[1] if name[0] == "budget" else name[0] for name in names} == expected["limits"]
        assert [one["asset"] for one in why["limits"] if one["decided"]] == ["USD"]


def test_a_mitigation_names_the_model(scene: Scene, tenant: Tenant) -> None:
    made = tenant.mitigate("downgrade", scope={"team": "search"}, downgrade_to="gpt-4o-mini")
    wait_for(lambda: model_of(tenant.chat("#normal in=10 out=5#"))[1], seconds=5)
    decided_by = f"mitigation:{made['mitigation_id']}"
    assert model_of(tenant.chat()) == ("gpt-4o-mini", decided_by)
    assert model_of(tenant.chat(headers={"X-Tallystick-Team": "ads"})) == ("gpt-4o", "")


def test_a_mitigation_leads_to_no_model_that_is_off(scene: Scene, tenant: Tenant) -> None:
    """A kill switch of the settings is nobody's to turn on again."""
    tenant.mitigate("downgrade", scope={"team": "search"}, downgrade_to="gpt-4.1-nano")
    refused = wait_for(lambda: (got := tenant.chat()).status_code != 200 and got, seconds=5)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "downgrade_required")


def test_a_mitigation_leads_to_nothing_that_cannot_carry_the_call(
    scene: Scene, tenant: Tenant
) -> None:
    """Gemini has no words for a bias: that is no failure of an upstream."""
    tenant.mitigate("downgrade", scope={"team": "search"}, downgrade_to="gemini-2.5-flash")
    refused = wait_for(
        lambda: (got := tenant.chat(logit_bias={"7": 1})).status_code != 200 and got, seconds=5
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "downgrade_required")


def test_a_kill_switch_ends_streams_and_stops_calls(scene: Scene, tenant: Tenant) -> None:
    headers = {**tenant.headers, "X-Tallystick-Team": "search"}
    body: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 600, "stream": True}
    body["messages"] = [{"role": "user", "content": "#slow rate=20 out=500#"}]
    with tenant.admin.stream(
        "POST", "/openai/v1/chat/completions", json=body, headers=headers
    ) as answer:
        lines = answer.iter_lines()
        assert answer.status_code == 200 and next(lines)
        made = tenant.mitigate("kill", scope={"team": "search"})
        wait_for(lambda: tenant.chat().status_code != 200, seconds=5)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]" and len(rest) < 400  # of 500 pieces, in 25 seconds
    assert any("kill" in line for line in rest), rest[-3:]
    refused = tenant.chat()
    error = refused.json()["error"]
    assert refused.status_code in (402, 403)
    assert error["decided_by"] == f"mitigation:{made['mitigation_id']}"
    answer_of_others = tenant.chat(headers={"X-Tallystick-Team": "ads"})
    assert answer_of_others.status_code == 200
    wait_for(lambda: scene.server.get(f"/v1/accounts/{tenant.name}/balance")["held"] == "0")


def test_tokens_a_minute(scene: Scene, tenant: Tenant) -> None:
    """Taken by estimate before the call, corrected to what was used after it."""
    limit = {"tenant_id": tenant.name, "kind": "key", "name": tenant.key_id, "asset": "tokens"}
    tenant.post("/v1/rate-limits", method="PUT", **limit, per_minute=1000, burst=1000)
    first = tenant.chat("#normal in=100 out=20#")
    assert first.status_code == 200, first.text
    assert first.headers["ratelimit-limit"] == "1000"
    again = [tenant.chat("#normal in=100 out=20#") for _ in range(4)]
    assert {one.status_code for one in again} == {200}  # by estimate only three would fit
    large = tenant.chat("#normal in=900 out=20#", max_tokens=900)
    assert large.status_code == 429, large.text
    assert int(large.headers["retry-after"]) > 0 and large.headers["ratelimit-remaining"] == "0"
    assert large.json()["error"]["decided_by"].startswith("rate_limit:")
    other = Tenant(scene, f"{tenant.name}-other")
    assert "ratelimit-limit" not in other.chat().headers


def test_a_token_count_takes_no_tokens_a_minute(scene: Scene, tenant: Tenant) -> None:
    """It is free: an agent that counts each long prompt must be able to send it then."""
    limit = {"tenant_id": tenant.name, "kind": "key", "name": tenant.key_id, "asset": "tokens"}
    tenant.post("/v1/rate-limits", method="PUT", **limit, per_minute=1000, burst=1000)
    body: dict[str, Any] = {"model": "claude-haiku-4-5"}
    body["messages"] = [{"role": "user", "content": "a long prompt " * 100}]
    for _ in range(4):
        counted = tenant.admin.post(
            "/anthropic/v1/messages/count_tokens", json=body, headers=tenant.headers
        )
        assert counted.status_code == 200, counted.text
        assert counted.headers["ratelimit-limit"] == "1000"
    assert tenant.chat("#normal in=100 out=20#").status_code == 200


def test_gateway_calls_and_logins_are_on_record(scene: Scene, tenant: Tenant) -> None:
    tenant.budget("none", scope={"team": "ads"}, amount="0")
    assert tenant.chat("#normal in=10 out=5#").status_code == 200
    assert tenant.chat(headers={"X-Tallystick-Team": "ads"}).status_code == 402

    def records(route: str, **more: str) -> list[dict[str, Any]]:
        found = scene.server.get("/v1/audit", route=route, **more)["records"]
        return list(found)

    def refusals(route: str) -> list[dict[str, Any]]:
        return [one for one in records(route) if one["status"] == 401]

    chat = "/openai/v1/chat/completions"
    found = wait_for(lambda: len(got := records(chat, tenant_id=tenant.name)) == 2 and got)
    assert [(one["status"], one["decision"]) for one in found] == [
        (402, "denied"),
        (200, "allowed"),
    ]
    assert {one["subject"] for one in found} == {f"key:{tenant.key_id}"}
    assert found[0]["code"] == "budget_exceeded"
    client = tenant.post(
        "/v1/oauth-clients", name="service", tenant_id=tenant.name, roles=["service"]
    )
    form = {"grant_type": "client_credentials", "client_id": client["client_id"]}
    url = str(tenant.admin.base_url)
    good = httpx.post(f"{url}/oauth/token", data={**form, "client_secret": client["client_secret"]})
    assert good.status_code == 200, good.text
    for _ in range(3):
        httpx.post(f"{url}/oauth/token", data={**form, "client_secret": "wrong"})
        httpx.post(f"{url}/login", data={"key": "wrong"})
    httpx.post(f"{url}/login", data={"key": tenant.key})
    allowed = wait_for(lambda: [r for r in records("/oauth/token") if r["status"] == 200])
    assert allowed[0]["tenant_id"] == tenant.name
    for route in ("/oauth/token", "/login"):
        assert wait_for(partial(refusals, route), seconds=20)
    assert wait_for(lambda: [r for r in records("/login") if r["status"] < 400])
