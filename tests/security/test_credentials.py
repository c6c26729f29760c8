"""Every door of the server without a key, with a dead one, with a small one, and as a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from starlette.routing import Mount, Route

from tallystick.api.routes import ROUTES
from tests.security.scene import Scene

pytestmark = pytest.mark.slow
_GATEWAY = (
    ("POST", "/openai/v1/chat/completions"),
    ("POST", "/openai/v1/responses"),
    ("POST", "/openai/v1/embeddings"),
    ("GET", "/openai/v1/models"),
    ("GET", "/openai/v1/models/gpt-4o"),
    ("POST", "/anthropic/v1/messages"),
    ("POST", "/anthropic/v1/messages/count_tokens"),
)
_PAGES = ("/", "/runs", "/runs/x", "/broken", "/broken/x", "/alerts", "/alerts/x")
_DOORS = (*_GATEWAY, ("GET", "/metrics"), *sorted({(one.method, one.path) for one in ROUTES}))
_ANYBODY = {"/healthz", "/readyz", "/openapi.json", "/oauth/token", "/login", "/logout"}
_CHAT = {"model": "gpt-4o", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def _plain(path: str) -> str:
    return re.sub(r"\{\w+(:path)?\}", "nothing", path)


@pytest.mark.parametrize(("method", "path"), _DOORS)
def test_dead_and_made_up_keys_open_nothing(scene: Scene, method: str, path: str) -> None:
    good = scene.keys["acme", "admin"]
    prefix = good.rpartition("_")[0]
    bad = {
        "": "nobody",
        scene.keys["acme", "expired"]: "expired",
        scene.keys["acme", "revoked"]: "revoked",
        f"{prefix}_{'0' * 64}": "a known prefix",
        good.upper(): "another case",
        good[:-1]: "cut",
        f"{good} ": "",
    }
    for key, name in bad.items():
        if name:
            answer = scene.ask(method, _plain(path), key, content=b"{")
            assert answer.status_code == 401, (name, answer.text)
            assert answer.headers.get("www-authenticate", "Bearer").startswith("Bearer")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic {key}"},
        {"Authorization": "{key}"},
        {"Cookie": "tallystick_session={key}"},
        {"X-Forwarded-User": "admin"},
        {"X-Tallystick-Tenant": "acme", "X-Tallystick-Account": "acme"},
    ],
    ids=str,
)
def test_only_a_bearer_is_asked(scene: Scene, headers: dict[str, str]) -> None:
    key = scene.keys["acme", "admin"]
    given = {name: value.format(key=key) for name, value in headers.items()}
    assert scene.ask("GET", "/v1/whoami", "", headers=given).status_code == 401
    assert scene.ask("GET", f"/v1/whoami?key={key}&access_token={key}", "").status_code == 401


@pytest.mark.parametrize(("method", "path"), _GATEWAY)
def test_the_gateway_needs_its_permission(scene: Scene, method: str, path: str) -> None:
    before = len(scene.upstream.truth())
    for strength in ("viewer", "none"):
        answer = scene.ask(method, path, scene.keys["globex", strength], json=_CHAT)
        assert answer.status_code == 403, answer.text
    assert len(scene.upstream.truth()) == before


def test_a_call_is_for_the_keys_own_account(scene: Scene) -> None:
    before = scene.server.get("/v1/accounts/acme/balance")["available"]
    headers = {"X-Tallystick-Account": "acme", "X-Tallystick-Tenant": "acme"}
    answer = scene.ask(
        "POST",
        "/openai/v1/chat/completions",
        scene.keys["globex", "service"],
        json=_CHAT,
        headers=headers,
    )
    assert answer.status_code == 200, answer.text
    assert scene.server.get("/v1/accounts/acme/balance")["available"] == before


@pytest.mark.parametrize("strength", ["admin", "viewer", "service", "none"])
def test_metrics_are_the_operators(scene: Scene, strength: str) -> None:
    assert scene.ask("GET", "/metrics", scene.keys["acme", strength]).status_code == 403
    assert scene.ask("GET", "/metrics").status_code == 200


def test_a_page_is_for_who_logged_in(scene: Scene) -> None:
    for path in _PAGES:
        for cookie in ("", "x", scene.keys["acme", "admin"]):
            headers = {"Cookie": f"tallystick_session={cookie}"}
            answer = scene.nobody.get(path, headers=headers)
            assert answer.status_code == 303, path
            assert answer.headers["location"] == "/login"
    for strength in ("expired", "revoked"):
        answer = scene.nobody.post("/login", data={"key": scene.keys["acme", strength]})
        assert answer.status_code == 401


def test_what_answers_anybody_is_known() -> None:
    """A new route that asks for no key has to be added here, on purpose."""
    from tallystick.api.oauth import oauth_routes
    from tallystick.dashboard.pages import pages_of

    class _Any:
        def __getattr__(self, name: str) -> _Any:
            return self

    services: object = _Any()
    open_paths = {route.path for route in oauth_routes(services)}  # type: ignore[arg-type]
    assert open_paths <= _ANYBODY | {
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
    }
    pages = pages_of(services)  # type: ignore[arg-type]
    for page in pages:
        if isinstance(page, Mount):
            assert page.path == "/static"
            continue
        assert isinstance(page, Route)
        is_guarded = page.endpoint.__name__ == "guard"
        assert is_guarded or page.path in _ANYBODY, page.path


# The dashboard: forged requests and headers


@contextmanager
def _browser(scene: Scene, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=scene.url, timeout=30) as browser:
        assert browser.post("/login", data={"key": key}).status_code == 303
        yield browser


def test_a_forged_form_changes_nothing(scene: Scene) -> None:
    signal = {"action": "acknowledge", "reason": "forged"}
    with _browser(scene, scene.keys["acme", "admin"]) as browser:
        alert = "/alerts/alr_none"
        with _browser(scene, scene.keys["acme", "viewer"]) as other:
            found = re.search(r'name="form_token" value="(\w+)"', other.get("/broken/x").text)
        stolen = found[1] if found else "0" * 64
        for token in ("", "0" * 64, stolen):
            headers = {"Origin": "https://evil.example"}
            answer = browser.post(alert, data={**signal, "form_token": token}, headers=headers)
            assert answer.status_code in (403, 404), answer.text
        # no cookie opens a route of the API
        assert browser.get("/v1/whoami").status_code == 401
        assert browser.post("/v1/grants", json={}).status_code == 401
        before = browser.cookies["tallystick_session"]
        assert browser.post("/login", data={"key": scene.keys["acme", "admin"]}).status_code == 303
        assert browser.cookies["tallystick_session"] != before, "a session is new at each login"


def test_no_session_is_chosen_by_a_stranger(scene: Scene) -> None:
    with httpx.Client(base_url=scene.url) as browser:
        browser.cookies.set("tallystick_session", "chosen-by-a-stranger")
        answer = browser.post("/login", data={"key": scene.keys["acme", "viewer"]})
        assert "chosen-by-a-stranger" not in answer.headers["set-cookie"]
        cookie = answer.headers["set-cookie"].lower()
        assert {"httponly", "samesite=strict", "path=/"} <= set(cookie.split("; "))


@pytest.mark.parametrize("path", [*_PAGES, "/login", "/static/style.css", "/nothing"])
def test_pages_carry_their_headers(scene: Scene, path: str) -> None:
    with _browser(scene, scene.keys["acme", "viewer"]) as browser:
        headers = browser.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    if headers.get("content-type", "").startswith("text/html"):
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"


def test_answers_in_json_carry_theirs(scene: Scene) -> None:
    for path in ("/v1/whoami", "/v1/stats", "/v1/nothing", "/healthz", "/openapi.json"):
        answer = scene.ask("GET", path)
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert "server" not in answer.headers
    given = {"name": "shown once", "tenant_id": "acme"}
    hook = {**given, "kind": "webhook", "target": "https://hooks.acme.example/x"}
    for path, body in (("/v1/api-keys", given), ("/v1/oauth-clients", given)):
        assert scene.ask("POST", path, json=body).headers["cache-control"] == "no-store", path
    made = scene.ask("POST", "/v1/alert-channels", json=hook)
    assert made.headers["cache-control"] == "no-store"
    path = f"/v1/alert-channels/{made.json()['channel_id']}/rotate"
    assert scene.ask("POST", path).headers["cache-control"] == "no-store"
