"""Who knows the id of another tenant's thing gains nothing: every route with an id, tried."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tallystick.api.route_entry import RouteEntry
from tallystick.api.routes import ROUTES
from tests.security.objects import OWNER, Objects
from tests.security.scene import Scene

pytestmark = pytest.mark.slow
_PUBLIC = {"/v1/schemas/{name}"}
_OWN_NAMESPACE = {
    "PUT /v1/budgets/{budget_id}",
    "PUT /v1/alert-routes/{route_id}",
    "PUT /v1/provider-keys/{upstream}",
}
"""A tenant names these itself: the same name of another tenant is another thing."""
_WITH_ID = [
    entry
    for entry in ROUTES
    if "{" in entry.path
    and entry.path not in _PUBLIC
    and f"{entry.method} {entry.path}" not in _OWN_NAMESPACE
]
_NAMES = [f"{entry.method} {entry.path}" for entry in _WITH_ID]
_NEW = {"idempotency_key": "stranger"}
_BODIES: dict[str, Any] = {
    "capture": {"amount": "1", **_NEW},
    "release": _NEW,
    "start": _NEW,
    "report": {"used": "1", "epoch": 1, **_NEW},
    "return": {"used": "1", "epoch": 1, **_NEW},
    "settle": {"usage": {"tokens_input": 1}, **_NEW},
    "mute": {"seconds": 60, "reason": "no"},
    "acknowledge": {"reason": "no"},
    "revert": {"reason": "no", **_NEW},
    "dismiss": {"reason": "no"},
    "fix": {"set": {"tokens_input": 1}},
}


@pytest.fixture(scope="package")
def theirs(scene: Scene) -> Objects:
    return Objects(scene)


@pytest.fixture(scope="module", autouse=True)
def nothing_changes(theirs: Objects) -> Any:
    before = _settled(theirs)
    yield
    after = theirs.shown()
    assert after == before


def _settled(theirs: Objects) -> dict[str, Any]:
    """What is shown once the delivery of the alert has come to rest."""
    deadline = time.monotonic() + 60
    shown = theirs.shown()
    while time.monotonic() < deadline:
        time.sleep(1.5)
        again = theirs.shown()
        if again == shown:
            break
        shown = again
    return shown


def _body(entry: RouteEntry) -> Any:
    if entry.method == "GET":
        return None
    end = entry.path.rpartition("/")[2]
    if end == "extend":
        tokens = {"tokens_output": 10} if "authorization" in entry.path else {"tokens": 10}
        return {"ttl_seconds": 60, "amount": "1", "epoch": 1, **tokens, **_NEW}
    if entry.path.startswith("/v1/accounts/"):
        return {"overage_limit": "1000000"}
    return _BODIES.get(end, {})


@pytest.mark.parametrize("entry", _WITH_ID, ids=_NAMES)
def test_another_tenants_thing_is_not_there(
    scene: Scene, theirs: Objects, entry: RouteEntry
) -> None:
    answer = scene.ask(
        entry.method, theirs.path(entry.path), scene.keys["globex", "admin"], json=_body(entry)
    )
    assert answer.status_code in (403, 404), answer.text
    assert OWNER not in answer.text


@pytest.mark.parametrize("entry", _WITH_ID, ids=_NAMES)
def test_naming_the_other_tenant_does_not_help(
    scene: Scene, theirs: Objects, entry: RouteEntry
) -> None:
    body = _body(entry)
    if isinstance(body, dict):
        body = {**body, "tenant_id": OWNER}
    answer = scene.ask(
        entry.method,
        theirs.path(entry.path) + f"?tenant_id={OWNER}&tenant={OWNER}",
        scene.keys["globex", "admin"],
        json=body,
    )
    assert answer.status_code in (400, 403, 404), answer.text


def test_the_same_name_of_another_tenant_is_another_thing(scene: Scene, theirs: Objects) -> None:
    key = scene.keys["globex", "admin"]
    budget = {"asset": "USD", "amount": "1", "scope": {"team": "y"}}
    made = scene.ask("PUT", theirs.path("/v1/budgets/{budget_id}"), key, json=budget)
    assert made.json()["tenant_id"] == "globex"
    steps = [{"after_seconds": 0, "channels": [theirs.ids["channel_id"]]}]
    told = scene.ask("PUT", "/v1/alert-routes/mine", key, json={"steps": steps})
    assert told.status_code in (400, 404), told.text


def test_the_paths_lead_to_real_things(scene: Scene, theirs: Objects) -> None:
    wanted = [entry for entry in _WITH_ID if entry.method == "GET" and "stream" not in entry.path]
    for entry in wanted:
        path = f"{theirs.path(entry.path)}?tenant_id={OWNER}"
        assert scene.ask("GET", path).status_code == 200, path
    own = scene.ask("GET", theirs.path("/v1/holds/{hold_id}"), scene.keys[OWNER, "viewer"])
    assert own.status_code == 200
