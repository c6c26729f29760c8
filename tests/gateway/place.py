"""A running gateway: clients, accounts and what was billed on both sides."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import openai

from tests.server import Server
from tests.upstream.running import Upstream


def ask(text: str) -> list[Any]:
    """Messages of one user turn."""
    return [{"role": "user", "content": text}]


class Place:
    """A server with its scripted upstream."""

    def __init__(self, server: Server, upstream: Upstream, folder: Path) -> None:
        self.server = server
        self.upstream = upstream
        self.folder = folder
        self.url = str(server.client.base_url).rstrip("/")
        self.key = server.client.headers["authorization"].partition(" ")[2]
        self._clients: list[openai.OpenAI | anthropic.Anthropic] = []
        self.account("acme", "1000")

    def account(self, name: str, credits: str = "") -> str:
        self.server.client.put(
            f"/v1/accounts/{name}", json={"tenant_id": "acme"}
        ).raise_for_status()
        if credits:
            grant = {"account_id": name, "amount": credits, "source": "topup"}
            grant["idempotency_key"] = f"grant-{name}"
            self.server.client.post("/v1/grants", json=grant).raise_for_status()
        return name

    def headers(self, account: str = "acme", **more: str) -> dict[str, str]:
        return {"X-Tallystick-Account": account, **more}

    def openai(self, account: str = "acme", retries: int = 0) -> openai.OpenAI:
        client = openai.OpenAI(
            base_url=self.url + "/openai/v1",
            api_key=self.key,
            default_headers=self.headers(account),
            max_retries=retries,
        )
        self._clients.append(client)
        return client

    def anthropic(self, account: str = "acme", retries: int = 0) -> anthropic.Anthropic:
        client = anthropic.Anthropic(
            base_url=self.url + "/anthropic",
            api_key=self.key,
            default_headers=self.headers(account),
            max_retries=retries,
        )
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def balance(self, account: str = "acme") -> dict[str, Any]:
        found: dict[str, Any] = self.server.get(f"/v1/accounts/{account}/balance")
        return found

    def has_no_hold(self, account: str = "acme") -> bool:
        """A stream's hold ends just after its last byte."""
        deadline = time.monotonic() + 10
        while Decimal(self.balance(account)["held"]):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def billed(self, request_id: str) -> dict[str, Any]:
        """What the upstream has of a request, by the id that the gateway gave it."""
        found = [one for one in self.upstream.truth() if one["request_id"] == request_id]
        assert len(found) == 1, found
        return found[0]

    def run(self, run_id: str) -> dict[str, Any]:
        self.server.wait_until_settled()
        found: dict[str, Any] = self.server.get(f"/v1/runs/{run_id}", tenant_id="acme")
        return found

    def event(self, run_id: str) -> dict[str, Any]:
        """The one usage event of a run that has tokens, once it is there."""
        deadline = time.monotonic() + 30
        found: list[dict[str, Any]] = []
        while time.monotonic() < deadline:
            answer = self.server.client.get(f"/v1/runs/{run_id}", params={"tenant_id": "acme"})
            if answer.status_code == 200:
                run = answer.json()
                named = {name: run[name] for name in ("team", "feature", "user")}
                found = [{**one, **named} for one in run["timeline"] if one.get("tokens_input")]
                if found:
                    assert len(found) == 1
                    return found[0]
            time.sleep(0.05)
        raise AssertionError(f"no usage of {run_id}")

    def usage(self, run_id: str) -> tuple[int, int, int, str]:
        """Input, output, cached tokens and quality of a run's one call."""
        event = self.event(run_id)
        return (
            event["tokens_input"],
            event.get("tokens_output", 0),
            event.get("tokens_cache_read", 0),
            event.get("usage_quality", "exact"),
        )
