"""The Policy Vault on real stores: the same nano-dollars as analytics, on its own way."""

from __future__ import annotations

from typing import Any

from tallystick.catalog import Catalog
from tallystick.clock import DAY, SystemClock
from tallystick.enforcement.vault import NoAssignments, Quotas, VaultStore
from tallystick.plumbing.log import Positions, PostgresSource
from tallystick.workers.vault import VaultFollower
from tests.world import World

TENANT = "acme"


def follower_of(world: World, **more: Any) -> VaultFollower:
    source = PostgresSource([world.log, world.corrections], world.positions, "vault")
    return VaultFollower(
        source,
        Positions(world.pool),
        VaultStore(world.pool),
        Catalog(world.pool),
        SystemClock(),
        **more,
    )


def follow(follower: VaultFollower) -> None:
    while follower.step():
        pass


def usage(world: World, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "token_usage",
        "event_time": world.at(-number),
        "tenant_id": TENANT,
        "run_id": f"r{number % 7}",
        "user_id": f"u{number % 5}",
        "project_id": f"p{number % 3}",
        "feature": f"f{number % 2}",
        "provider": "openai",
        "model": ("gpt-4o", "gpt-4o-mini")[number % 2],
        "tokens_input": 1000 + number,
        "tokens_output": 10 * number,
        **changes,
    }


def test_spent_is_what_analytics_says(world: World) -> None:
    events = [usage(world, number) for number in range(100)]
    world.send(events + events[:20])
    follow(follower_of(world))
    world.settle()
    totals = world.totals(TENANT)
    now = world.clock.now()
    report = Quotas(VaultStore(world.pool), NoAssignments()).report(
        TENANT, {}, now, (now - 2 * DAY, now + DAY)
    )
    assert report["spent"]["cost_usd"] == totals["cost_usd"] != "0"
    for name, ours in (("calls", "requests"), ("tokens_input", "tokens_input")):
        assert report["spent"][ours] == totals[name]
    assert report["spent"]["events"] == totals["events"] == 100
