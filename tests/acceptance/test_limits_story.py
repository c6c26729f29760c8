"""A team lead's day: a budget, its alert, its cap, why, more money; told once, over HTTP.

One call of gpt-4.1 with 1200 and 250 tokens costs 0.0044 dollars; the budget is 0.05. Half of
it is passed with the sixth call, and after the eleventh nothing fits any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.alerts.receivers import http_receiver
from tests.limits.scene import Scene, Tenant, open_scene, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with open_scene(tmp_path_factory.mktemp("story")) as opened:
        yield opened


class Lead:
    """A team lead with a key of the tenant."""

    def __init__(self, tenant: Tenant) -> None:
        made = tenant.post("/v1/api-keys", name="lead", tenant_id=tenant.name, roles=["admin"])
        self._client = tenant.admin
        self._headers = {"Authorization": f"Bearer {made['key']}"}

    def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer = self._client.request(method, path, json=body or None, headers=self._headers)
        assert answer.status_code < 300, answer.text
        found: dict[str, Any] = answer.json()
        return found


def test_the_story(scene: Scene) -> None:
    tenant = Tenant(scene, "acme")
    lead = Lead(tenant)
    terms: dict[str, Any] = {"asset": "USD", "window": "month", "scope": {"team": "search"}}
    terms["thresholds"] = [{"at": 0.5, "action": "alert"}]
    with http_receiver() as receiver:
        hook = {"name": "on-call", "kind": "webhook", "target": receiver.url}
        channel = lead.ask("POST", "/v1/alert-channels", **hook)
        lead.ask("PUT", "/v1/budgets/search-monthly", amount="0.05", **terms)
        for number in range(6):
            assert tenant.chat(model="gpt-4.1").status_code == 200, number
        came = receiver.wait_for(1)[0]
    told = Webhook(channel["secret"]).verify(came.body, came.headers)
    assert told["type"] == "alert.opened"
    alert = told["data"]
    assert alert["who"] == "team=search"
    assert alert["what"].startswith("budget search-monthly passed 50 percent")
    assert alert["how_much"].endswith("USD used or held of 0.05")
    assert "declined" in alert["next_step"] and "budget set" in alert["how_to_stop"]

    for number in range(5):
        assert tenant.chat(model="gpt-4.1").status_code == 200, number
    wait_for(lambda: tenant.quota("search-monthly", team="search")["used"] == "0.0484")
    refused = tenant.chat(model="gpt-4.1")
    assert refused.status_code == 402, refused.text
    error = refused.json()["error"]
    assert (error["code"], error["decided_by"]) == ("budget_exceeded", "budget:search-monthly")

    work = {"account_id": "acme", "amount": "0.44", "cost_usd": "0.0044"}
    why = lead.ask("POST", "/v1/budgets:explain", **work, attribution={"team": "search"})
    assert (why["would_be"], why["decided_by"]) == ("declined", "budget:search-monthly")
    (limit,) = [one for one in why["limits"] if not one["fits"]]
    assert (limit["capacity"], limit["used"], limit["room"]) == ("0.05", "0.0484", "0.0016")

    lead.ask("PUT", "/v1/budgets/search-monthly", amount="0.5", **terms)
    wait_for(lambda: tenant.chat(model="gpt-4.1").status_code == 200)

    wait_for(lambda: tenant.quota("search-monthly", team="search")["used"] == "0.0528")
    scene.server.wait_until_settled()
    (row,) = lead.ask("GET", "/v1/stats?interval=none&team=search")["rows"]
    quota = tenant.quota("search-monthly", team="search")
    assert row["cost_usd"] == quota["spent"] == quota["used"] == "0.0528"
    assert (quota["assigned"], quota["held"], quota["remaining"]) == ("0.5", "0", "0.4472")
    assert [one["is_crossed"] for one in quota["thresholds"]] == [False]
