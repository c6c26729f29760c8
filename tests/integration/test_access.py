"""Who may do what over HTTP, on one real server: routes, tenants, escalation, login, secrets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tallystick.access import PERMISSIONS, ROLES
from tallystick.api.app import METRICS
from tallystick.api.route_entry import RouteEntry
from tallystick.api.routes import ROUTES
from tests.server import Server, event

pytestmark = pytest.mark.slow
EVERY_ROUTE = (*ROUTES, METRICS)
_NAMES = [f"{entry.method} {entry.path}" for entry in EVERY_ROUTE]


class Scene:
    """A server, and keys of two tenants in every role."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.secrets: list[str] = []
        self.keys = {
            (tenant, role): self.key(tenant_id=tenant, roles=[role])["key"]
            for tenant in ("acme", "globex")
            for role in ROLES
        }

    def key(self, by: str = "", **given: Any) -> dict[str, Any]:
        body = {"name": "test", **given}
        answer = self.ask("POST", "/v1/api-keys", by, json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        self.secrets.append(made["key"])
        return made

    def ask(self, method: str, path: str, key: str = "", **more: Any) -> httpx.Response:
        """Ask with a key; "" is the operator's."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.server.client.request(method, path, headers=headers, **more)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    server = Server(tmp_path_factory.mktemp("access") / "data").start()
    made = Scene(server)
    for tenant in ("acme", "globex"):
        server.client.put(f"/v1/accounts/{tenant}", json={"tenant_id": tenant}).raise_for_status()
        grant = {"account_id": tenant, "amount": "100", "idempotency_key": "g"}
        server.client.post("/v1/grants", json=grant).raise_for_status()
    yield made
    assert server.stop() == 0


# Who may use which route


@pytest.mark.parametrize("entry", EVERY_ROUTE, ids=_NAMES)
def test_a_route_names_a_permission_that_somebody_has(entry: RouteEntry) -> None:
    if entry.path == "/v1/whoami":
        assert entry.needs == ""
        return
    assert entry.needs in PERMISSIONS, "name the permission of the route: needs=..."
    assert any(entry.needs in permissions for permissions in ROLES.values())


def _call(scene: Scene, entry: RouteEntry, key: str) -> httpx.Response:
    path = re.sub(r"\{\w+(:path)?\}", "nothing", entry.path)
    if "stream" in path:
        path = "/v1/accounts/nothing/balance/stream"
    body = b"" if entry.method == "GET" else b"{"
    return scene.ask(entry.method, path, key, content=body)


@pytest.mark.parametrize("entry", EVERY_ROUTE, ids=_NAMES)
def test_who_gets_403(scene: Scene, entry: RouteEntry) -> None:
    for role, permissions in ROLES.items():
        answer = _call(scene, entry, scene.keys["acme", role])
        is_allowed = not entry.needs or entry.needs in permissions
        if is_allowed and not entry.is_for_operator:
            assert answer.status_code not in (401, 403), (role, answer.text)
        else:
            assert answer.status_code == 403, (role, answer.text)
            assert answer.json()["code"] == "forbidden"


@pytest.mark.parametrize("entry", EVERY_ROUTE, ids=_NAMES)
def test_nobody_is_let_in_without_a_key(scene: Scene, entry: RouteEntry) -> None:
    bad = ["ts_aaaaaaaa_" + "0" * 64, "x", scene.keys["acme", "admin"][:-1] + "g"]
    for key in bad:
        answer = _call(scene, entry, key)
        assert answer.status_code == 401, answer.text
    with httpx.Client(base_url=scene.server.client.base_url) as nobody:
        path = re.sub(r"\{\w+(:path)?\}", "nothing", entry.path)
        answer = nobody.request(entry.method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


# Tenants


def test_another_tenants_ledger_is_not_there(scene: Scene) -> None:
    key = scene.keys["globex", "admin"]
    body = {"account_id": "acme", "amount": "1", "idempotency_key": "theirs"}
    held = scene.ask("POST", "/v1/holds", json=body).json()
    asked: list[tuple[str, str, Any]] = [
        ("POST", "/v1/holds", {**body, "idempotency_key": "new"}),
        ("POST", "/v1/holds", body),
        ("POST", f"/v1/holds/{held['hold_id']}/capture", {"amount": "1", "idempotency_key": "c"}),
        ("POST", f"/v1/holds/{held['hold_id']}/release", {"idempotency_key": "r"}),
        ("POST", "/v1/grants", {**body, "idempotency_key": "gg"}),
        ("POST", "/v1/charges", {**body, "idempotency_key": "cc"}),
        ("GET", f"/v1/holds/{held['hold_id']}", None),
        ("GET", "/v1/accounts/acme/balance", None),
        ("GET", "/v1/accounts/acme/balance/stream", None),
        ("GET", "/v1/accounts/acme/entries", None),
        ("PUT", "/v1/accounts/acme", {"overage_limit": "1000"}),
    ]
    for method, path, content in asked:
        answer = scene.ask(method, path, key, json=content)
        assert answer.status_code == 404, (path, answer.text)
        assert answer.json()["code"].startswith("unknown_")
    own = scene.ask("GET", "/v1/accounts", key).json()["accounts"]
    assert [one["account_id"] for one in own] == ["globex"]
    batch = {"items": [body, {**body, "account_id": "globex", "idempotency_key": "b"}]}
    results = scene.ask("POST", "/v1/holds:batch", key, json=batch).json()["results"]
    assert [one.get("code", "") for one in results] == ["unknown_account", ""]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/stats?tenant_id=acme",
        "/v1/stats?tenant=acme",
        "/v1/runs?tenant_id=acme",
        "/v1/runs?tenant=acme",
        "/v1/runs/run-of-acme?tenant_id=acme",
        "/v1/accounts?tenant_id=acme",
        "/v1/broken-messages?tenant_id=acme",
        "/v1/api-keys?tenant_id=acme",
        "/v1/identity-providers?tenant_id=acme",
    ],
)
def test_naming_another_tenant_is_refused(scene: Scene, path: str) -> None:
    answer = scene.ask("GET", path, scene.keys["globex", "admin"])
    assert (answer.status_code, answer.json()["code"]) == (403, "tenant_mismatch")


def test_usage_stays_with_its_tenant(scene: Scene) -> None:
    sent = [event(event_id=f"{name}-1", run_id=f"run-of-{name}", tenant_id=name) for name in
            ("acme", "globex")]  # fmt: skip
    bad = event(event_id="bad", tokens_input=-1)
    mine = scene.keys["acme", "engineer"]
    receipt = scene.ask("POST", "/v1/events", mine, json=[*sent, bad]).json()
    assert receipt["accepted"] == 1
    assert [one["code"] for one in receipt["rejected"]] == ["tenant_mismatch", "negative_number"]
    without = {name: value for name, value in sent[1].items() if name != "tenant_id"}
    other = scene.keys["globex", "engineer"]
    assert scene.ask("POST", "/v1/events", other, json=without).json()["accepted"] == 1
    scene.server.wait_until_settled()
    for key, own in ((mine, "acme"), (other, "globex")):
        rows = scene.ask("GET", "/v1/stats?group_by=tenant", key).json()["rows"]
        assert {row["tenant"] for row in rows} == {own}
        runs = scene.ask("GET", "/v1/runs", key).json()["runs"]
        assert {run["tenant_id"] for run in runs} == {own}
    assert scene.ask("GET", "/v1/runs/run-of-acme", other).status_code == 404
    assert scene.ask("GET", "/v1/runs/run-of-acme", mine).status_code == 200
    broken = scene.ask("GET", "/v1/broken-messages", mine).json()["broken_messages"]
    assert {one["tenant_id"] for one in broken} == {"acme"} and len(broken) == 2
    path = f"/v1/broken-messages/{broken[0]['broken_id']}"
    assert scene.ask("GET", "/v1/broken-messages", other).json()["broken_messages"] == []
    for method, end, body in (
        ("GET", "", None),
        ("POST", "/fix", {"set": {"tokens_input": 1}}),
        ("POST", "/dismiss", {"reason": "no"}),
    ):
        assert scene.ask(method, path + end, other, json=body).status_code == 404


# Keys


def test_a_tenants_admin_gives_no_more_than_it_has(scene: Scene) -> None:
    admin = scene.keys["acme", "admin"]
    own = scene.ask("POST", "/v1/api-keys", admin, json={"name": "n", "roles": ["viewer"]})
    assert own.status_code == 201 and own.json()["tenant_id"] == "acme"
    refused = scene.ask("POST", "/v1/api-keys", admin, json={"name": "n", "tenant_id": "globex"})
    assert (refused.status_code, refused.json()["code"]) == (403, "tenant_mismatch")
    small = scene.key(tenant_id="acme", roles=["viewer"], scopes=["access:write", "access:read"])
    limited = small["key"]
    for body in ({"roles": ["admin"]}, {"scopes": ["ledger:write"]}):
        answer = scene.ask("POST", "/v1/api-keys", limited, json={"name": "n", **body})
        assert (answer.status_code, answer.json()["code"]) == (403, "more_than_own")
    strong = scene.key(tenant_id="acme", roles=["admin"])
    path = f"/v1/api-keys/{strong['key_id']}"
    assert scene.ask("POST", path + "/rotate", limited).status_code == 403
    assert scene.ask("PATCH", path, limited, json={"name": "mine"}).status_code == 403
    own_path = f"/v1/api-keys/{small['key_id']}"
    raised = scene.ask("PATCH", own_path, limited, json={"roles": ["admin"]})
    assert (raised.status_code, raised.json()["code"]) == (403, "more_than_own")
    for name, value in (("tenant_id", "globex"), ("tenant_id", ""), ("hash", "x"), ("kind", "x")):
        taken = scene.ask("PATCH", own_path, admin, json={name: value})
        assert (taken.status_code, taken.json()["code"]) == (400, "bad_body"), name
    for other in (scene.keys["globex", "admin"],):
        for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/rotate"), ("PATCH", "")):
            answer = scene.ask(method, path + end, other, json={} if method == "PATCH" else None)
            assert answer.status_code == 404, (method, end, answer.text)


def test_a_key_lives_rotates_and_ends(scene: Scene) -> None:
    made = scene.key(tenant_id="acme", roles=["viewer"], expires_at="2100-01-01T00:00:00Z")
    path = f"/v1/api-keys/{made['key_id']}"
    assert made["key"].startswith(f"ts_{made['prefix']}_")
    shown = scene.ask("GET", path).text
    assert made["key"] not in shown and "hash" not in shown
    rotated = scene.ask("POST", path + "/rotate", json={"overlap_seconds": 600}).json()
    scene.secrets.append(rotated["key"])
    for key in (made["key"], rotated["key"]):
        assert scene.ask("GET", "/v1/whoami", key).json()["tenant_id"] == "acme"
    last = scene.ask("POST", path + "/rotate").json()
    scene.secrets.append(last["key"])
    for key, status in ((made["key"], 401), (rotated["key"], 401), (last["key"], 200)):
        assert scene.ask("GET", "/v1/whoami", key).status_code == status
    assert scene.ask("DELETE", path).json()["revoked_at"]
    assert scene.ask("GET", "/v1/whoami", last["key"]).status_code == 401
    assert scene.ask("POST", path + "/rotate").status_code == 409


def test_a_key_is_good_only_from_its_addresses(scene: Scene) -> None:
    here = scene.key(tenant_id="acme", roles=["viewer"], addresses=["127.0.0.0/8"])["key"]
    away = scene.key(tenant_id="acme", roles=["viewer"], addresses=["192.0.2.0/24"])["key"]
    assert scene.ask("GET", "/v1/whoami", here).status_code == 200
    answer = scene.ask("GET", "/v1/whoami", away)
    assert (answer.status_code, answer.json()["code"]) == (403, "address_not_allowed")


# OAuth


def test_a_client_gets_tokens_for_its_scopes(scene: Scene) -> None:
    body = {"name": "svc", "tenant_id": "acme", "roles": ["service"], "service_id": "checkout"}
    client = scene.ask("POST", "/v1/oauth-clients", json={**body, "cost_center": "cc-7"}).json()
    scene.secrets.append(client["client_secret"])
    identity = (client["client_id"], client["client_secret"])
    form = {"grant_type": "client_credentials", "scope": "usage:write"}
    with httpx.Client(base_url=scene.server.client.base_url) as nobody:
        basic = nobody.post("/oauth/token", data=form, auth=identity)
        post = {"client_id": identity[0], "client_secret": identity[1]}
        posted = nobody.post("/oauth/token", data={"grant_type": "client_credentials", **post})
        wide = nobody.post("/oauth/token", data={**form, "scope": "ledger:write"}, auth=identity)
        wrong = nobody.post("/oauth/token", data=form, auth=(identity[0], "x"))
        unknown = nobody.post("/oauth/token", data=form, auth=("client-aaaaaaaa", identity[1]))
        other = nobody.post("/oauth/token", data={"grant_type": "password"}, auth=identity)
        both = nobody.post("/oauth/token", data={**form, **post}, auth=identity)
        keys = nobody.get("/.well-known/jwks.json").json()["keys"]
        metadata = nobody.get("/.well-known/oauth-authorization-server").json()
    assert basic.status_code == posted.status_code == 200
    assert basic.headers["cache-control"] == "no-store"
    token = basic.json()["access_token"]
    who = scene.ask("GET", "/v1/whoami", token).json()
    assert (who["tenant_id"], who["service_id"], who["cost_center"]) == ("acme", "checkout", "cc-7")
    assert who["permissions"] == ["usage:write"]
    assert (wide.status_code, wide.json()["error"]) == (400, "invalid_scope")
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    assert (unknown.status_code, unknown.json()) == (401, wrong.json())
    assert (other.status_code, other.json()["error"]) == (400, "unsupported_grant_type")
    assert (both.status_code, both.json()["error"]) == (400, "invalid_request")
    assert len(keys) == 1 and not {"d", "k"} & keys[0].keys()
    assert metadata["grant_types_supported"] == ["client_credentials"]
    # the secret of a client is no key, and rotation of what signs ends no token
    assert scene.ask("GET", "/v1/whoami", client["client_secret"]).status_code == 401
    assert scene.ask("POST", "/v1/signing-keys:rotate").status_code == 201
    assert scene.ask("GET", "/v1/whoami", token).status_code == 200
    scene.ask("DELETE", f"/v1/oauth-clients/{client['id']}").raise_for_status()
    assert scene.ask("GET", "/v1/whoami", token).status_code == 401


# The dashboard


def _login(scene: Scene, key: str) -> httpx.Client:
    browser = httpx.Client(base_url=scene.server.client.base_url)
    answer = browser.post("/login", data={"key": key})
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and key not in cookie
    return browser


def test_a_session_sees_its_tenant_and_ends_with_its_key(scene: Scene) -> None:
    made = scene.key(tenant_id="globex", roles=["viewer"])
    with closing(_login(scene, made["key"])) as browser:
        page = browser.get("/")
        assert page.status_code == 200 and "acme" not in page.text
        assert "Freshness" not in page.text
        assert browser.get("/?tenant=acme").status_code == 403
        assert browser.get("/runs?tenant=acme").status_code == 403
        assert "acme" not in browser.get("/runs").text
        assert "acme" not in browser.get("/budgets").text.partition("no budget yet")[0]
        assert browser.get("/budgets?tenant_id=acme").status_code == 403
        assert browser.get("/audit").status_code == 403, "a viewer may not read the audit trail"
        forged = browser.cookies["tallystick_session"].replace(made["prefix"], "admin")
        with httpx.Client(base_url=browser.base_url) as thief:
            thief.cookies.set("tallystick_session", forged)
            assert thief.get("/").status_code == 303
        scene.ask("DELETE", f"/v1/api-keys/{made['key_id']}").raise_for_status()
        assert browser.get("/").status_code == 303


def test_only_who_may_look_at_usage_has_a_dashboard(scene: Scene) -> None:
    with closing(_login(scene, scene.keys["acme", "service"])) as browser:
        assert browser.get("/").status_code == 403
    with httpx.Client(base_url=scene.server.client.base_url) as browser:
        assert browser.post("/login", data={"key": "ts_x"}).status_code == 401


def test_a_viewer_cannot_fix_through_the_page(scene: Scene) -> None:
    broken = scene.ask("GET", "/v1/broken-messages").json()["broken_messages"][0]
    with closing(_login(scene, scene.keys["acme", "viewer"])) as browser:
        path = f"/broken/{broken['broken_id']}"
        found = re.search(r'name="form_token" value="(\w+)"', browser.get(path).text)
        assert found is not None
        form = {"form_token": found[1], "action": "dismiss", "reason": "no"}
        assert browser.post(path, data=form).status_code == 403
        assert browser.post(path, data={**form, "form_token": "0"}).status_code == 403


def test_no_secret_is_written_anywhere(scene: Scene) -> None:
    folder: Path = scene.server.folder
    assert len(scene.secrets) > 12
    wanted = [secret.rpartition("_")[2].encode() for secret in scene.secrets]
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret in content for secret in wanted), path


def test_keys_by_the_command_line(scene: Scene) -> None:
    def run(*words: str) -> Any:
        command = [sys.executable, "-m", "tallystick.cli.main", "admin", "key", *words]
        more = ["--data", str(scene.server.folder), "--json"]
        done = subprocess.run([*command, *more], capture_output=True, check=True, timeout=60)
        return json.loads(done.stdout)

    made = run("create", "from the shell", "--tenant", "acme", "--role", "viewer")
    assert scene.ask("GET", "/v1/whoami", made["key"]).json()["tenant_id"] == "acme"
    listed = run("list", "--tenant", "acme")["api_keys"]
    assert listed[0]["name"] == "from the shell" and "key" not in listed[0]
    rotated = run("rotate", made["key_id"])
    assert scene.ask("GET", "/v1/whoami", made["key"]).status_code == 401
    assert scene.ask("GET", "/v1/whoami", rotated["key"]).status_code == 200
    assert run("revoke", made["key_id"])["revoked_at"]
    assert scene.ask("GET", "/v1/whoami", rotated["key"]).status_code == 401


def test_a_stream_ends_with_its_key(scene: Scene) -> None:
    made = scene.key(tenant_id="acme", roles=["viewer"])
    headers = {"Authorization": f"Bearer {made['key']}"}
    path = "/v1/accounts/acme/balance/stream"
    with scene.server.client.stream("GET", path, headers=headers) as answer:
        pieces = answer.iter_text()
        assert "event: balance" in next(pieces)
        scene.ask("DELETE", f"/v1/api-keys/{made['key_id']}").raise_for_status()
        grant = {"account_id": "acme", "amount": "1", "idempotency_key": "after"}
        scene.ask("POST", "/v1/grants", json=grant).raise_for_status()
        assert "event: balance" not in "".join(pieces)
