"""One server with its gateway, and principals of two tenants in every strength.

`acme` owns things; `globex` is the stranger. `attack` asks as somebody and never follows a
redirect. Every secret that was ever given out is kept in `secrets`, so that the last test can
look for them in every stored byte.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.server import Server
from tests.upstream.running import Upstream

PROVIDER_KEY = "sk-provider-secret-4711"
OTHER_PROVIDER_KEY = "sk-ant-provider-secret-4712"
MAIL_PASSWORD = "mail-secret-4714"
GATEWAY = """
[upstreams.openai]
kind = "openai"
base_url = "{url}/v1"
api_key = "{key}"
models = ["gpt-*", "text-embedding-*"]

[upstreams.anthropic]
kind = "anthropic"
base_url = "{url}/v1"
api_key = "{other}"
models = ["claude-*"]
"""
_STRENGTHS = ("admin", "viewer", "service")


def gateway_settings(upstream: Upstream) -> str:
    """The gateway's file: both upstreams are the scripted one."""
    return GATEWAY.format(url=upstream.url, key=PROVIDER_KEY, other=OTHER_PROVIDER_KEY)


class Scene:
    """The server under attack, and who may be whom."""

    def __init__(self, server: Server, upstream: Upstream, folder: Path) -> None:
        self.server = server
        self.upstream = upstream
        self.folder = folder
        self.url = str(server.client.base_url).rstrip("/")
        self.operator = server.client.headers["authorization"].partition(" ")[2]
        self.secrets: dict[str, str] = {}
        self.nobody = httpx.Client(base_url=self.url, timeout=30)
        self.keys: dict[tuple[str, str], str] = {}
        self.made: list[dict[str, Any]] = []
        for tenant in ("acme", "globex"):
            self._settle_in(tenant)

    def _settle_in(self, tenant: str) -> None:
        account = {"tenant_id": tenant}
        self.ask("PUT", f"/v1/accounts/{tenant}", json=account).raise_for_status()
        grant = {"account_id": tenant, "amount": "1000", "idempotency_key": f"first {tenant}"}
        self.ask("POST", "/v1/grants", json=grant).raise_for_status()
        for role in _STRENGTHS:
            self.keys[tenant, role] = self.key(
                tenant_id=tenant, roles=[role], account_id=tenant if role == "service" else ""
            )
        self.keys[tenant, "none"] = self.key(tenant_id=tenant)
        soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
        self.keys[tenant, "expired"] = self.key(tenant_id=tenant, roles=["admin"], expires_at=soon)
        self.keys[tenant, "revoked"] = self.key(tenant_id=tenant, roles=["admin"])
        self.ask("DELETE", f"/v1/api-keys/{self.made[-1]['key_id']}").raise_for_status()

    def key(self, **given: Any) -> str:
        """Make a key as the operator; its secret is remembered."""
        answer = self.ask("POST", "/v1/api-keys", json={"name": "attack", **given})
        answer.raise_for_status()
        self.made.append(answer.json())
        secret: str = answer.json()["key"]
        self.secrets[f"api key {len(self.secrets)}"] = secret.rpartition("_")[2]
        return secret

    def ask(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
        """Ask with a key; by default as the operator, with "" as nobody."""
        key = self.operator if key is None else key
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **more.pop("headers", {})}
        return self.nobody.request(method, path, headers=headers, **more)

    def wait_until_expired(self) -> None:
        """The keys named "expired" were good for a moment."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.ask("GET", "/v1/whoami", self.keys["globex", "expired"]).status_code == 401:
                return
            time.sleep(0.1)
        raise AssertionError("the key is good for too long")

    @property
    def postgres_url(self) -> str:
        """The embedded database of the server, by the socket folder of its process."""
        for process in self.server.tree():
            words = process.cmdline()
            if words[:1] and words[0].endswith("/postgres") and "-k" in words:
                folder = words[words.index("-k") + 1]
                return f"postgresql://tallystick@/tallystick?host={folder}"
        raise AssertionError("the server has no PostgreSQL of its own")

    def close(self) -> None:
        self.nobody.close()
