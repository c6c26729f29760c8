"""Usage counts against its budgets once, whether it asked or not; over HTTP."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.limits.scene import PRICE, Scene, Tenant, Told, wait_for

_KEPT = ("assigned", "spent", "used", "held", "remaining")


def settled(tenant: Tenant, budget: str, amount: str, **scope: str) -> None:
    """Everybody has counted, and all say the same."""
    tenant.wait_used(budget, amount)
    tenant.wait_for_vault()
    quota = tenant.quota(budget, **scope)
    assert (quota["spent"], quota["used"], quota["held"]) == (amount, amount, "0"), quota


def test_usage_that_never_asked_counts_and_then_blocks(scene: Scene, tenant: Tenant) -> None:
    tenant.budget("team", scope={"team": "search"}, amount="0.02")
    tenant.send({}, {}, {"team": "ads"})
    settled(tenant, "team", "0.011", team="search")
    quota = tenant.quota("team", team="search")
    assert {name: quota[name] for name in _KEPT} == {
        "assigned": "0.02",
        "spent": "0.011",
        "used": "0.011",
        "held": "0",
        "remaining": "0.009",
    }
    tenant.send({})
    settled(tenant, "team", "0.0165", team="search")
    refused = tenant.authorize()
    assert refused.status_code == 402, refused.text
    assert refused.json()["decided_by"] == "budget:team"
    assert tenant.authorize(attribution={"team": "ads"}).status_code == 201


def test_a_call_that_asked_is_counted_once(scene: Scene, tenant: Tenant) -> None:
    """By its capture; then usage of the same run that did not ask counts beside it."""
    tenant.budget("team", scope={"team": "search"})
    tenant.call(run_id="one")
    tenant.call()
    assert tenant.chat().status_code == 200
    settled(tenant, "team", "0.0165", team="search")
    tenant.send({"run_id": "one"})
    settled(tenant, "team", "0.022", team="search")


def test_a_budget_in_the_middle_of_a_window(scene: Scene, tenant: Tenant) -> None:
    """It begins with what was spent, also a window of each user who has not asked yet."""
    tenant.send({"user_id": "ann"}, {"user_id": "ann"}, {"user_id": "bob"})
    tenant.call(attribution={"team": "search", "user": "ann"})
    tenant.wait_for_vault()
    tenant.budget("late", scope={"team": "search"})
    tenant.budget("rolling", scope={"team": "search"}, window="rolling", rolling_hours=24)
    tenant.budget("users", scope={"user": "*"}, amount="0.02")
    settled(tenant, "late", "0.022", team="search")
    settled(tenant, "rolling", "0.022", team="search")
    assert tenant.authorize(attribution={"user": "ann"}).status_code in (201, 402)
    tenant.wait_used("users", "0.0165", user="ann")
    refused = tenant.authorize(attribution={"user": "ann"})
    assert (refused.status_code, refused.json()["decided_by"]) == (402, "budget:users")
    assert tenant.authorize(attribution={"user": "bob"}).status_code == 201
    assert tenant.quota("users", user="ann")["spent"] == "0.0165"


@pytest.mark.parametrize("dimension", ["key", "org"])
def test_key_and_org_count_both_ways(scene: Scene, tenant: Tenant, dimension: str) -> None:
    """What a key's holder asked for, and events that name the key or the organization."""
    value = tenant.key_id if dimension == "key" else "north"
    tenant.budget("one", scope={dimension: value}, amount="0.02")
    attribution = {"team": "search", "org": "north"}
    tenant.call(attribution=attribution)
    tenant.send({"attrs": {f"tallystick_{dimension}": value}}, {"attrs": {}})
    settled(tenant, "one", "0.011", **{dimension: value})
    work = {"account_id": tenant.name, "amount": "0.1", "attribution": attribution}
    work |= {"cost_usd": "0.005", "idempotency_key": f"hold-{dimension}"}
    held = tenant.admin.post("/v1/holds", json=work, headers=tenant.headers)
    assert held.status_code == 201, held.text
    assert tenant.quota("one", **{dimension: value})["held"] == "0.005"
    assert tenant.authorize(attribution=attribution).status_code == 402


@pytest.mark.parametrize(
    ("asset", "amount"), [("CREDIT", ""), ("tokens", "4350"), ("requests", "3")]
)
def test_every_asset_counts_once(scene: Scene, tenant: Tenant, asset: str, amount: str) -> None:
    tenant.budget("one", scope={"team": "search"}, asset=asset, amount="100000")
    tenant.call()
    assert tenant.chat().status_code == 200
    tenant.send({})
    tenant.wait_for_vault()
    wait_for(lambda: tenant.quota("one", team="search")["held"] == "0")
    quota = wait_for(lambda: same(tenant.quota("one", team="search")))
    assert Decimal(quota["spent"]) == Decimal(amount or "1.98")


def test_a_call_that_costs_nothing_is_a_request(scene: Scene, tenant: Tenant) -> None:
    """At once, by its capture: seconds later, by its event, nothing would bound how many."""
    tenant.budget("few", scope={"team": "search"}, asset="requests", amount="3")
    found = []
    for _ in range(6):
        found.append(tenant.chat("#refused#").status_code)
        wait_for(lambda: tenant.quota("few", team="search")["held"] == "0")
    assert found == [400, 400, 400, 402, 402, 402]
    settled(tenant, "few", "3", team="search")


def same(quota: Told) -> Told | None:
    return quota if quota["spent"] == quota["used"] else None


def test_a_late_event_does_not_enter_a_rolling_window(scene: Scene, tenant: Tenant) -> None:
    tenant.budget("rolling", scope={"team": "search"}, window="rolling", rolling_hours=1)
    tenant.send({"event_time": "2026-01-01T00:00:00Z"}, {})
    settled(tenant, "rolling", PRICE, team="search")
    assert Decimal(tenant.quota("rolling", team="search")["remaining"]) == 1 - Decimal(PRICE)


def test_budgets_of_others_hold_after_a_tenant_asked(scene: Scene, tenant: Tenant) -> None:
    """What a process keeps of budgets is everybody's, whoever's request refreshed it."""
    other = Tenant(scene, f"{tenant.name}-other")
    for one in (tenant, other):
        one.budget("tiny", amount="0.001")
        for asked in (tenant, other):
            assert asked.authorize().status_code in (201, 402)
    assert tenant.authorize().status_code == other.authorize().status_code == 402
