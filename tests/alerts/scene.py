"""What tests of alerts share: a signal, and everything wired on a real PostgreSQL."""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.clock import MINUTE, SECOND, FixedClock, SystemClock
from tallystick.enforcement.alerts import AlertStore, Signal
from tallystick.enforcement.alerts.channels import Channels, channel_sealing
from tallystick.enforcement.alerts.delivery import Delivery
from tallystick.enforcement.alerts.model import Step
from tallystick.enforcement.alerts.outbox import Outbox
from tallystick.enforcement.alerts.sending import Sender, read_mail_server
from tallystick.enforcement.alerts.service import Alerts
from tallystick.ids import Uuid7Source
from tallystick.plumbing.outbound import OutboundPolicy
from tallystick.plumbing.postgres import open_pool, transaction

NOW = 1_764_000_000_000_000
KEY = "a key of tests"

SIGNAL = Signal(
    signal_id="budget:b1/2026-11/0.8",
    tenant_id="acme",
    kind="budget",
    severity="warning",
    who="team=search",
    what="has used 80 percent of its monthly budget",
    how_much="80.50 of 100 USD",
    since=NOW - 5 * MINUTE,
    next_step="at 100 percent its calls are refused",
    how_to_stop="raise the budget or stop the nightly evaluation",
    at=NOW,
)


class Scene:
    """One tenant's alerts; the clock stands still until a test moves it."""

    def __init__(self, postgres_url: str, tenant_id: str, smtp_url: str = "") -> None:
        self.tenant_id = tenant_id
        self.pool = open_pool(postgres_url, connections_max=4)
        self.clock = FixedClock(SystemClock().now())
        ids = Uuid7Source(self.clock)
        policy = OutboundPolicy(allow_private=True)
        sealing = channel_sealing(KEY)
        self.store = AlertStore()
        self.alerts = Alerts(self.pool, self.clock)
        self.channels = Channels(self.pool, self.clock, ids, sealing, policy)
        self.outbox = Outbox(self.pool, self.clock, ids, public_url="https://usage.example.com/")
        sender = Sender(policy, read_mail_server(smtp_url), "alerts@example.com")
        self.delivery = Delivery(self.outbox, sender, sealing, self.clock, lambda: 0.5)

    def raise_signal(self, **changes: Any) -> None:
        wanted = {"tenant_id": self.tenant_id, "at": self.clock.now(), **changes}
        with transaction(self.pool) as connection:
            self.store.raise_signal(connection, msgspec.structs.replace(SIGNAL, **wanted))

    def clear(self) -> None:
        with transaction(self.pool) as connection:
            self.store.clear(
                connection, SIGNAL.signal_id, self.clock.now(), tenant_id=self.tenant_id
            )

    def settle(self) -> None:
        while self.delivery.step():
            pass

    def later(self, seconds: float) -> None:
        self.clock.micros += int(seconds * SECOND)
        self.settle()

    def channel(self, kind: str, target: str, **more: Any) -> dict[str, Any]:
        return self.channels.create(
            self.tenant_id, name=kind, kind=kind, target=target, key="", by="admin", **more
        )

    def route(self, *steps: tuple[int, str], **conditions: Any) -> None:
        wanted: dict[str, Any] = {
            "position": 1, "severities": [], "kinds": [], "scope": "", **conditions
        }  # fmt: skip
        self.channels.put_route(
            self.tenant_id,
            "main",
            steps=[Step(after, (channel,)) for after, channel in steps],
            by="admin",
            **wanted,
        )

    def alert(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = self.alerts.page(self.tenant_id, {})["alerts"]
        return found[0]

    def deliveries(self) -> list[dict[str, Any]]:
        told = self.alerts.deliveries(self.tenant_id, self.alert()["alert_id"])["deliveries"]
        return list(reversed(told))

    def close(self) -> None:
        self.delivery.close()
        self.pool.close()
