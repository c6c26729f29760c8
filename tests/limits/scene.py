"""A tenant on a shared server: its budgets, its calls and what is said of both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from tests.server import Server, event
from tests.upstream.running import Upstream

SETTINGS = """
models_off = ["gpt-4.1-nano"]

[upstreams.gemini]
kind = "gemini"
base_url = "{url}/v1beta"
api_key = "gemini-upstream"
models = ["gemini-*"]

[upstreams.openai]
kind = "openai"
base_url = "{url}/v1"
api_key = "sk-upstream"

[upstreams.anthropic]
kind = "anthropic"
base_url = "{url}/v1"
api_key = "sk-ant-upstream"

[routes.some-model]
targets = [{{ upstream = "openai", model = "gpt-4o" }}]
downgrades = [
    {{ upstream = "gemini", model = "gemini-2.5-flash" }},
    {{ upstream = "openai", model = "gpt-4o-mini" }},
]

[routes.gpt-4o]
targets = [{{ upstream = "openai", model = "gpt-4o" }}]
downgrades = [{{ upstream = "openai", model = "gpt-4o-mini" }}]
"""
PRICE = "0.0055"
"""USD of a gpt-4o call of 1200 and 250 tokens."""
_serial = count()
Told = dict[str, Any]


class Scene:
    """The server and its upstream."""

    def __init__(self, server: Server, upstream: Upstream) -> None:
        self.server = server
        self.upstream = upstream


@contextmanager
def open_scene(folder: Path) -> Iterator[Scene]:
    """Start an upstream and a server in front of it; stop both."""
    upstream = Upstream()
    config = folder / "gateway.toml"
    config.write_text(SETTINGS.format(url=upstream.url))
    server = Server(folder / "data")
    settings = {
        "TALLYSTICK_GATEWAY_CONFIG": str(config),
        "TALLYSTICK_ALLOW_PRIVATE_ADDRESSES": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        server.start()
    finally:
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
    try:
        yield Scene(server, upstream)
    finally:
        server.stop()
        upstream.stop()


def wait_for(look: Callable[[], Any], seconds: float = 30) -> Any:
    """What `look` finds once it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


class Tenant:
    """A tenant with an account of its name, and a key of its own."""

    def __init__(self, scene: Scene, name: str) -> None:
        self.scene, self.name, self.admin = scene, name, scene.server.client
        self.post("/v1/accounts", f"/{name}", method="PUT", tenant_id=name)
        self.post("/v1/grants", account_id=name, amount="1000", idempotency_key=f"g-{name}")
        made = self.post("/v1/api-keys", name="app", tenant_id=name, roles=["engineer", "service"])
        self.key_id, self.key = made["key_id"], made["key"]
        self.headers = {"Authorization": f"Bearer {self.key}"}

    def post(self, path: str, more: str = "", method: str = "POST", **body: Any) -> Told:
        answer = self.admin.request(method, path + more, json=body)
        answer.raise_for_status()
        found: Told = answer.json()
        return found

    def budget(self, name: str, **terms: Any) -> Told:
        body = {"tenant_id": self.name, "asset": "USD", "amount": "1", "window": "day", **terms}
        return self.post(f"/v1/budgets/{name}", method="PUT", **body)

    def mitigate(self, step: str, **more: Any) -> Told:
        """Put a step in force."""
        body: Told = {"tenant_id": self.name, "scope": {}, "step": step, "reason": "a runaway"}
        body |= {"idempotency_key": f"{self.name}-m{next(_serial)}", "ttl_seconds": 600}
        return self.post("/v1/mitigations", **{**body, **more})

    def send(self, *events: Told) -> None:
        """Usage that asked nobody."""
        made = [
            event(
                tenant_id=self.name,
                event_id=f"{self.name}-{next(_serial)}",
                **{"run_id": "", "team": "search", **one},
            )
            for one in events
        ]
        answer = self.admin.post("/v1/events", json=made)
        assert answer.status_code == 200 and answer.json()["accepted"] == len(made), answer.text

    def authorize(self, **more: Any) -> httpx.Response:
        body = {
            "provider": "openai",
            "model": "gpt-4o",
            "tokens_input": 1200,
            "tokens_output_max": 250,
            "attribution": {"team": "search"},
            "idempotency_key": f"{self.name}-a{next(_serial)}",
            **more,
        }
        return self.admin.post("/v1/authorizations", json=body, headers=self.headers)

    def call(self, **more: Any) -> Told:
        """A call that asks, and settles at PRICE."""
        permit = self.authorize(**more)
        assert permit.status_code == 201, permit.text
        answer = self.admin.post(
            f"/v1/authorizations/{permit.json()['authorization_id']}/settle",
            json={"usage": {"tokens_input": 1200, "tokens_output": 250}},
            headers=self.headers,
        )
        assert answer.status_code == 200, answer.text
        found: Told = answer.json()
        return found

    def chat(self, text: str = "#normal in=1200 out=250#", **more: Any) -> httpx.Response:
        """A call through the gateway."""
        headers = {**self.headers, "X-Tallystick-Team": "search", **more.pop("headers", {})}
        body = {"model": "gpt-4o", "max_tokens": 250, **more}
        body["messages"] = [{"role": "user", "content": text}]
        return self.admin.post("/openai/v1/chat/completions", json=body, headers=headers)

    def quota(self, budget: str, **scope: str) -> Told:
        found = self.scene.server.get("/v1/quotas", tenant_id=self.name, **scope)["quotas"]
        quotas: list[Told] = [one for one in found if one["budget_id"] == budget]
        assert len(quotas) == 1, found
        return quotas[0]

    def used(self, budget: str, **each: str) -> str:
        """What the ledger counts of a budget's one window, "" when there is none yet."""
        answer = self.scene.server.get(f"/v1/budgets/{budget}/windows", tenant_id=self.name)
        found = [one for one in answer["windows"] if not each or one["each"] == each]
        assert len(found) <= 1, found
        return str(found[0]["used"]) if found else ""

    def wait_for_vault(self) -> None:
        """Until the vault counted what was sent before: it counts a later canary."""
        self.budget(canary := f"canary-{next(_serial)}", scope={"team": canary})
        self.send({"team": canary})
        self.wait_used(canary, PRICE)

    def wait_used(self, budget: str, amount: str, **each: str) -> None:
        """Until the ledger counts so much, and the vault has nothing left to add."""
        try:
            wait_for(lambda: self.used(budget, **each) == amount)
        except AssertionError as error:
            raise AssertionError(f"{self.used(budget, **each)} is used, not {amount}") from error
