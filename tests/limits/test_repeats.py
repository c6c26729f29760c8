"""A repeat answers as before, also when a mitigation or a throttle would refuse it now."""

from __future__ import annotations

from itertools import count
from typing import Any

import httpx

from tallystick.clock import SystemClock, to_datetime
from tests.limits.scene import Scene, Tenant, wait_for

_serial = count()


def hold(tenant: Tenant, key: str, cost: str = "0.01") -> httpx.Response:
    body = {"account_id": tenant.name, "amount": "1", "cost_usd": cost, "idempotency_key": key}
    return tenant.admin.post("/v1/holds", json=body)


def batch(tenant: Tenant, *keys: str) -> list[dict[str, Any]]:
    items = [
        {"account_id": tenant.name, "amount": "1", "cost_usd": "0.01", "idempotency_key": key}
        for key in keys
    ]
    answer = tenant.admin.post("/v1/holds:batch", json={"items": items})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


def test_under_a_kill_switch(scene: Scene, tenant: Tenant) -> None:
    tenant.budget("cap", amount="0.015")
    posted, declined = hold(tenant, "first"), hold(tenant, "second")
    assert (posted.status_code, declined.status_code) == (201, 402)
    permit = tenant.authorize(model="gpt-4o-mini", idempotency_key="call")
    assert permit.status_code == 201, permit.text
    tenant.mitigate("kill")
    wait_for(lambda: hold(tenant, f"new{next(_serial)}").json().get("code") == "blocked", seconds=5)
    assert hold(tenant, "first").json() == posted.json()
    again = hold(tenant, "second")
    assert (again.status_code, again.json()["operation_id"]) == (
        402,
        declined.json()["operation_id"],
    )
    assert hold(tenant, "first", cost="0.02").status_code == 409
    same = tenant.authorize(model="gpt-4o-mini", idempotency_key="call").json()
    assert same["authorization_id"] == permit.json()["authorization_id"]
    first, second, third = batch(tenant, "first", "second", "fourth")
    assert first["hold_id"] == posted.json()["hold_id"]
    assert second["operation_id"] == declined.json()["operation_id"]
    assert second["budget"]["budget_id"] == "cap" and second["resets_at"]
    assert third["code"] == "blocked"


def test_under_a_throttle(scene: Scene, tenant: Tenant) -> None:
    posted = hold(tenant, "first")
    began = min(to_datetime(SystemClock().now()).day, 28)  # a window that has hardly begun
    throttle = [{"at": 0.1, "action": "throttle"}]
    tenant.budget("slow", amount="0.02", window="month", anchor_day=began, thresholds=throttle)
    wait_for(lambda: hold(tenant, "next").status_code == 429, seconds=5)
    assert hold(tenant, "first").json() == posted.json()
