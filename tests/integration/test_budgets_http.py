"""Budgets over HTTP on a real server: set, enforced, watched, changed, explained, ended."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from tests.server import Server

_serial = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("budgets") / "data").start()
    yield made
    made.stop()


@pytest.fixture
def tenant(server: Server) -> str:
    """A tenant with an account of its name and 1000 credits."""
    name = f"tenant-{next(_serial)}"
    server.client.put(f"/v1/accounts/{name}", json={"tenant_id": name}).raise_for_status()
    grant = {"account_id": name, "amount": "1000", "idempotency_key": "g"}
    server.client.post("/v1/grants", json=grant).raise_for_status()
    return name


def put(server: Server, tenant: str, budget_id: str, **terms: Any) -> httpx.Response:
    body = {"tenant_id": tenant, "asset": "USD", "amount": "1", "window": "day", **terms}
    return server.client.put(f"/v1/budgets/{budget_id}", json=body)


def hold(server: Server, tenant: str, **more: Any) -> httpx.Response:
    body = {"account_id": tenant, "amount": "1", "idempotency_key": f"h{next(_serial)}", **more}
    return server.client.post("/v1/holds", json=body)


def window(server: Server, tenant: str, budget_id: str) -> dict[str, Any]:
    found = server.get(f"/v1/budgets/{budget_id}/windows", tenant_id=tenant)["windows"]
    assert len(found) == 1
    shown: dict[str, Any] = found[0]
    return shown


def test_a_day_in_dollars_blocks(server: Server, tenant: str) -> None:
    answer = put(server, tenant, "team", scope={"team": "search"}, amount="0.05")
    assert answer.status_code == 200, answer.text
    work = {"attribution": {"team": "search"}, "cost_usd": "0.02"}
    first = hold(server, tenant, **work)
    assert first.status_code == 201, first.text
    assert hold(server, tenant, **work).status_code == 201
    refused = hold(server, tenant, **work)
    assert refused.status_code == 402
    problem = refused.json()
    assert problem["code"] == "budget_exceeded"
    assert problem["decided_by"] == "budget:team"
    assert problem["available"] == "0.01"
    assert problem["retry"] == "wait"
    assert problem["resets_at"] == problem["budget"]["resets_at"]
    assert hold(server, tenant, attribution={"team": "ads"}, cost_usd="5").status_code == 201
    captured = {"amount": "1", "cost_usd": "0.005", "idempotency_key": "c"}
    end = server.client.post(f"/v1/holds/{first.json()['hold_id']}/capture", json=captured)
    assert end.status_code == 200, end.text
    shown = window(server, tenant, "team")
    assert (shown["used"], shown["held"], shown["available"]) == ("0.005", "0.02", "0.025")
    assert hold(server, tenant, **work).status_code == 201
    why = server.get(f"/v1/refusals/{problem['operation_id']}")
    assert why["decided_by"] == "budget:team"
    assert [one["decided"] for one in why["limits"]] == [False, True]
    ask = {"account_id": tenant, "amount": "1", "cost_usd": "0.9", **work, "tokens": 1}
    ask["cost_usd"] = "0.9"
    would = server.client.post("/v1/budgets:explain", json=ask).json()
    assert (would["would_be"], would["decided_by"]) == ("declined", "budget:team")


def test_a_month_in_credits_blocks_charges_and_holds(server: Server, tenant: str) -> None:
    put(server, tenant, "credits", asset="CREDIT", amount="3", window="month")
    charge = {"account_id": tenant, "amount": "2", "idempotency_key": "a"}
    assert server.client.post("/v1/charges", json=charge).status_code == 201
    refused = server.client.post("/v1/charges", json={**charge, "idempotency_key": "b"})
    assert (refused.status_code, refused.json()["decided_by"]) == (402, "budget:credits")
    assert hold(server, tenant).status_code == 201
    assert hold(server, tenant).status_code == 402
    after = {**charge, "idempotency_key": "c", "after_the_fact": True}
    assert server.client.post("/v1/charges", json=after).status_code == 201
    shown = window(server, tenant, "credits")
    assert (shown["used"], shown["held"], shown["overrun"]) == ("4", "1", "2")


def test_an_edit_holds_at_once_and_is_kept(server: Server, tenant: str) -> None:
    put(server, tenant, "b", asset="requests", amount="5")
    assert all(hold(server, tenant).status_code == 201 for _ in range(3))
    changed = server.client.patch(
        "/v1/budgets/b", json={"tenant_id": tenant, "amount": "2"}, headers={"If-Match": '"1"'}
    )
    assert (changed.status_code, changed.json()["revision"]) == (200, 2)
    shown = window(server, tenant, "b")
    assert (shown["capacity"], shown["held"], shown["overrun"]) == ("2", "3", "1")
    assert hold(server, tenant).status_code == 402
    stale = {"tenant_id": tenant, "amount": "9", "revision": 1}
    assert server.client.patch("/v1/budgets/b", json=stale).status_code == 409
    other = put(server, tenant, "b", asset="requests", amount="5", scope={"user": "u"})
    assert other.json()["code"] == "budget_shape_fixed"
    shown = server.get("/v1/budgets/b", tenant_id=tenant)
    assert [one["amount"] for one in shown["revisions"]] == ["2", "5"]
    ended = server.client.delete("/v1/budgets/b", params={"tenant_id": tenant})
    assert ended.json()["status"] == "deleted"
    assert hold(server, tenant).status_code == 201
    assert server.client.get("/v1/budgets/b", params={"tenant_id": tenant}).status_code == 404


def test_a_budget_that_is_paused_refuses_no_more_to_work_under_way(
    server: Server, tenant: str
) -> None:
    put(server, tenant, "b", amount="0.05", scope={"team": "search"})
    held = hold(server, tenant, cost_usd="0.04", attribution={"team": "search"}).json()

    def extend() -> int:
        more = {"amount": "1", "cost_usd": "0.02", "idempotency_key": f"e{next(_serial)}"}
        answer = server.client.post(f"/v1/holds/{held['hold_id']}/extend", json=more)
        if answer.status_code == 402:
            why = server.get(f"/v1/refusals/{answer.json()['operation_id']}")
            assert why["decided_by"] == "budget:b" and len(why["limits"]) == 2
        return answer.status_code

    def change(status: str) -> None:
        body = {"tenant_id": tenant, "status": status}
        server.client.patch("/v1/budgets/b", json=body).raise_for_status()

    assert extend() == 402
    change("paused")
    assert extend() == 200
    change("active")
    assert extend() == 402
    server.client.delete("/v1/budgets/b", params={"tenant_id": tenant}).raise_for_status()
    assert extend() == 200


def test_what_would_decide_is_asked_as_work_is(server: Server, tenant: str) -> None:
    """A key's own budget stands in the way of its holds, so it is told of too."""
    made = {"name": "app", "tenant_id": tenant, "roles": ["engineer", "service"]}
    key = server.client.post("/v1/api-keys", json=made).json()
    put(server, tenant, "keys", amount="0.01", scope={"key": "*"})
    work = {"account_id": tenant, "amount": "1", "cost_usd": "0.02"}
    headers = {"Authorization": f"Bearer {key['key']}"}
    held = server.client.post("/v1/holds", json={**work, "idempotency_key": "k"}, headers=headers)
    would = server.client.post("/v1/budgets:explain", json=work, headers=headers).json()
    assert (held.status_code, held.json()["decided_by"]) == (402, "budget:keys")
    assert (would["would_be"], would["decided_by"]) == ("declined", "budget:keys")
    named = {**work, "attribution": {"key": key["key_id"]}}
    asked = server.client.post("/v1/budgets:explain", json=named).json()
    assert asked["decided_by"] == "budget:keys"


def test_a_repeated_hold_is_answered_as_before_whatever_was_edited(
    server: Server, tenant: str
) -> None:
    put(server, tenant, "b", asset="requests", amount="1")
    first = hold(server, tenant, idempotency_key="same")
    put(server, tenant, "c", asset="requests", amount="0")
    assert hold(server, tenant, idempotency_key="same").json() == first.json()
    other = hold(server, tenant, idempotency_key="same", cost_usd="1")
    assert other.status_code == 409


def test_each_user_soft_shadow_and_batch(server: Server, tenant: str) -> None:
    put(server, tenant, "each", asset="requests", amount="1", scope={"user": "*"})
    put(server, tenant, "soft", asset="requests", amount="1", enforcement="soft")
    put(server, tenant, "shadow", asset="requests", amount="2", shadow=True)
    items = [
        {
            "account_id": tenant,
            "amount": "1",
            "idempotency_key": f"i{n}",
            "attribution": {"user_id": f"u{n % 3}"},
        }
        for n in range(5)
    ]
    results = server.client.post("/v1/holds:batch", json={"items": items}).json()["results"]
    assert [one["status"] for one in results] == ["held"] * 3 + [402] * 2
    assert results[4]["decided_by"] == "budget:each"
    windows = server.get("/v1/budgets/each/windows", tenant_id=tenant)["windows"]
    assert sorted(one["each"]["user"] for one in windows) == ["u0", "u1", "u2"]
    soft, shadow = (window(server, tenant, one) for one in ("soft", "shadow"))
    assert (soft["held"], soft["overrun"], soft["would_have_blocked"]) == ("3", "2", 2)
    assert (shadow["held"], shadow["overrun"], shadow["would_have_blocked"]) == ("3", "1", 1)


def test_a_lease_is_refused_where_a_hard_budget_could_limit_it(server: Server, tenant: str) -> None:
    put(server, tenant, "b", asset="requests", amount="1", scope={"team": "search"})
    body = {"account_id": tenant, "amount": "5", "idempotency_key": "l"}
    refused = server.client.post("/v1/leases", json=body)
    assert (refused.status_code, refused.json()["code"]) == (409, "lease_under_budget")
    free = server.client.post("/v1/leases", json={**body, "attribution": {"team": "ads"}})
    assert free.status_code == 201


def test_what_makes_no_sense_is_refused(server: Server, tenant: str) -> None:
    for wrong in (
        {"asset": "EUR"},
        {"amount": "-1"},
        {"window": "year"},
        {"time_zone": "Mars/Olympus"},
        {"window": "rolling"},
        {"anchor_day": 32},
        {"scope": {"colour": "red"}},
        {"thresholds": [{"at": 1.5, "action": "block"}]},
        {"thresholds": [{"at": 0.5, "action": "sing"}]},
        {"carry_over_max": "-1"},
        {"enforcement": "maybe"},
        {"status": "deleted"},
    ):
        answer = put(server, tenant, "wrong", **wrong)
        assert answer.status_code == 400, (wrong, answer.text)
    assert put(server, tenant, "no/slash").status_code in (404, 405)
    assert put(server, "", "nobody").status_code == 400


def test_the_page_shows_used_held_and_left(server: Server, tenant: str) -> None:
    put(server, tenant, "page", name="page<b>", scope={"user": "*"}, amount="0.08")
    put(server, tenant, "unused", scope={"team": "nobody", "user": "*"})  # by work alone
    kept = hold(server, tenant, attribution={"user": "ada"}, cost_usd="0.02").json()
    hold(server, tenant, attribution={"user": "ada"}, cost_usd="0.02")
    captured = {"amount": "1", "cost_usd": "0.01", "idempotency_key": "c"}
    server.client.post(f"/v1/holds/{kept['hold_id']}/capture", json=captured).raise_for_status()
    with httpx.Client(base_url=server.client.base_url) as browser:
        browser.post("/login", data={"key": (server.folder / "admin.key").read_text().strip()})
        page = browser.get("/budgets", params={"tenant_id": tenant}).text
    assert "page&lt;b&gt;" in page and "page<b>" not in page
    assert '<rect class="used" width="12.5"' in page
    assert '<rect class="held" x="12.5" width="25.0"' in page
    cells = '<td class="n">0.01</td><td class="n">0.02</td><td class="n">0.05</td>'
    assert cells in page and "user=ada, 37.5%" in page and "nothing asked for yet" in page


def test_the_ledger_agrees_with_its_history(server: Server) -> None:
    assert server.get("/v1/verification")["holds"]
