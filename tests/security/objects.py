"""Real things of one tenant, made over HTTP, and two rows that only followers make.

`Objects.paths` has one entry for each route that names a thing: the id of acme's. What a route
shows of it before and after an attack must be the same.
"""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg

from tallystick.clock import SystemClock
from tallystick.enforcement.alerts import AlertStore
from tests.alerts.scene import SIGNAL
from tests.security.scene import Scene
from tests.server import event

OWNER = "acme"
_OVERRUN = """
INSERT INTO enforcement.overrun (overrun_id, tenant_id, kind, dimension, value, severity, detector,
    since, seen_at, last_at, observed_units, expected_units, excess_units, detail)
VALUES ('overrun-of-them', 'acme', 'burn_rate', 'key', 'k', 'critical', 'burn 5m',
    1, 2, 3, 4, 5, 6, 'theirs')
"""
_FAR = {"from": "2098-11-20T09:00:00Z", "to": "2098-11-21T09:00:00Z"}


class Objects:
    """What acme has: ids by the name of the path's parameter."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.ids: dict[str, str] = {"account_id": OWNER, "rate_card_id": "card-of-them"}
        self._ledger()
        self._usage()
        self._access()
        self._limits()
        self._followers()

    def _make(self, method: str, path: str, body: Any, name: str = "") -> Any:
        answer = self._scene.ask(method, path, json=body)
        assert answer.status_code in (200, 201), (path, answer.text)
        made = answer.json()
        if name:
            self.ids[name] = made[name]
        return made

    def _ledger(self) -> None:
        credit = {"account_id": OWNER, "amount": "5", "ttl_seconds": 3600}
        self._make("POST", "/v1/holds", {**credit, "idempotency_key": "theirs"}, "hold_id")
        lease = {**credit, "worker": "w", "idempotency_key": "lease"}
        self._make("POST", "/v1/leases", lease, "lease_id")
        call = {
            "account_id": OWNER,
            "provider": "openai",
            "model": "gpt-4o",
            "tokens_input": 10,
            "tokens_output_max": 10,
            "idempotency_key": "call",
        }
        self._make("POST", "/v1/authorizations", call, "authorization_id")
        charge = {**credit, "amount": "1", "run_id": "run-of-them", "idempotency_key": "charge"}
        self.ids["charge_id"] = self._make("POST", "/v1/charges", charge)["charge_id"]
        much = {**credit, "amount": "100000", "idempotency_key": "too much"}
        refused = self._scene.ask("POST", "/v1/holds", json=much)
        self.ids["operation_id"] = refused.json()["operation_id"]
        budget = {"tenant_id": OWNER, "run_id": "run-of-them", "amount": "2", "asset": "USD"}
        self._make("POST", "/v1/run-budgets", budget, "run_id")

    def _usage(self) -> None:
        sent = [
            event(event_id="good", run_id="run-of-them"),
            event(event_id="bad", run_id="run-of-them", tokens_input=-1),
        ]
        self._make("POST", "/v1/events", sent)
        self._scene.server.wait_until_settled()
        found = self._scene.server.get("/v1/broken-messages", tenant_id=OWNER, limit=200)
        self.ids["broken_id"] = next(
            broken["broken_id"]
            for broken in found["broken_messages"]
            if broken["draft"].get("event_id") == "bad"
        )
        version = {
            "kind": "credit",
            "tenant_id": OWNER,
            "effective_at": "2098-12-01T00:00:00Z",
            "content": {"token_markup": "1.3"},
        }
        self._make("POST", "/v1/rate-cards/card-of-them/versions", version)
        backfill = {
            "from": "2020-01-01T00:00:00Z",
            "to": "2020-01-02T00:00:00Z",
            "reason": "theirs",
            "tenant_ids": [OWNER],
            "dry_run": True,
            "idempotency_key": "backfill",
        }
        self._make("POST", "/v1/backfills", backfill, "backfill_id")

    def _access(self) -> None:
        given = {"name": "theirs", "tenant_id": OWNER, "roles": ["viewer"]}
        key = self._make("POST", "/v1/api-keys", given)
        client = self._make("POST", "/v1/oauth-clients", given)
        self.ids["credential_id"] = key["key_id"]
        self.ids["client"] = client["id"]
        self._scene.secrets["theirs"] = key["key"].rpartition("_")[2]
        self._scene.secrets["client secret"] = client["client_secret"].rpartition("_")[2]
        own = {"tenant_id": OWNER, "key": "sk-own-provider-secret-4713"}
        self._make("PUT", "/v1/provider-keys/their-upstream", own, "upstream")
        self._scene.secrets["provider key"] = own["key"]
        provider = {
            "tenant_id": OWNER,
            "issuer": "https://login.acme.example",
            "audience": "tallystick",
            "jwks_url": "https://login.acme.example/keys",
        }
        self._make("POST", "/v1/identity-providers", provider, "provider_id")

    def _limits(self) -> None:
        budget = {"tenant_id": OWNER, "asset": "USD", "amount": "5000", "scope": {"team": "x"}}
        self._make("POST", "/v1/budgets", budget, "budget_id")
        channel = {
            "tenant_id": OWNER,
            "name": "hook",
            "kind": "webhook",
            "target": "https://hooks.acme.example/secret-path-of-hook",
        }
        made = self._make("POST", "/v1/alert-channels", channel, "channel_id")
        self._scene.secrets["webhook"] = made["secret"].removeprefix("whsec_")
        steps = [{"after_seconds": 0, "channels": [self.ids["channel_id"]]}]
        route = {"tenant_id": OWNER, "steps": steps}
        self._make("PUT", "/v1/alert-routes/route-of-them", route, "route_id")
        limit = {"tenant_id": OWNER, "kind": "key", "name": "k-1", "per_minute": 600}
        self._make("PUT", "/v1/rate-limits", limit, "limit_id")
        mitigation = {
            "tenant_id": OWNER,
            "scope": {"key": "k-1"},
            "step": "throttle",
            "reason": "theirs",
            "ttl_seconds": 3600,
        }
        self._make("POST", "/v1/mitigations", mitigation, "mitigation_id")
        launch = {**_FAR, "tenant_id": OWNER, "scope": {"feature": "chat"}, "reason": "theirs"}
        launch["expected_factor"] = "3"
        self._make("POST", "/v1/planned-launches", launch, "launch_id")

    def _followers(self) -> None:
        now = SystemClock().now()
        signal = msgspec.structs.replace(SIGNAL, tenant_id=OWNER, at=now, since=now)
        with psycopg.connect(self._scene.postgres_url) as connection:
            connection.execute(_OVERRUN.encode())
            AlertStore().raise_signal(connection, signal)
        alert = self._scene.server.get("/v1/alerts", tenant_id=OWNER)["alerts"][0]
        self.ids |= {"overrun_id": "overrun-of-them", "alert_id": alert["alert_id"]}

    def path(self, pattern: str) -> str:
        """The path of acme's thing on a route."""
        name = pattern.partition("{")[2].partition("}")[0]
        is_client = pattern.startswith("/v1/oauth-clients")
        found = self.ids["client" if is_client else name.removesuffix(":path")]
        return pattern.replace("{" + name + "}", found)

    def shown(self) -> dict[str, Any]:
        """What the operator sees of acme's things."""
        query = f"tenant_id={OWNER}"
        listed = (
            "accounts", "api-keys", "oauth-clients", "identity-providers", "budgets",
            "rate-limits", "mitigations", "mitigation-policies", "planned-launches", "overruns",
            "alerts", "alert-channels", "alert-routes", "broken-messages", "authorizations",
        )  # fmt: skip
        paths = {
            *(f"/v1/{name}?{query}" for name in listed),
            *(
                self.path(pattern)
                for pattern in (
                    "/v1/accounts/{account_id:path}/balance",
                    "/v1/accounts/{account_id:path}/entries",
                    "/v1/holds/{hold_id}",
                    "/v1/holds/{lease_id}",
                    "/v1/mitigations/{mitigation_id}",
                    "/v1/broken-messages/{broken_id}",
                    "/v1/alerts/{alert_id}",
                    "/v1/rate-cards/{rate_card_id}/versions",
                )
            ),
            self.path("/v1/run-budgets/{run_id}") + f"?{query}",
            self.path("/v1/runs/{run_id}") + f"?{query}",
            self.path("/v1/budgets/{budget_id}") + f"?{query}",
        }
        return {path: self._show(path) for path in paths}

    def _show(self, path: str) -> Any:
        answer = self._scene.ask("GET", path)
        assert answer.status_code == 200, (path, answer.text)
        return _without_uses(answer.json())


def _without_uses(shown: Any) -> Any:
    """When a key was last used changes by itself."""
    if isinstance(shown, dict):
        return {name: _without_uses(one) for name, one in shown.items() if name != "used_at"}
    return [_without_uses(one) for one in shown] if isinstance(shown, list) else shown
