"""An event from beyond the late window, from the door to the charge: kept, flagged, charged.

Its repeat is found however late it comes, and a tenant's credit card says whether it costs.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tallystick.analytics.stats import StatsQuery
from tallystick.clock import DAY, HOUR
from tests.world import World

COST, CREDITS = Decimal("0.00035"), Decimal("0.042")  # of 100 input and 10 output tokens


def usage(world: World, tenant: str, number: int, days_old: int) -> dict[str, Any]:
    return {
        "event_id": f"e-{number}",
        "event_type": "token_usage",
        "event_time": world.at(-days_old * 86_400),
        "tenant_id": tenant,
        "run_id": f"run-{number}",
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_input": 100,
        "tokens_output": 10,
    }


def charge_late_events(world: World, tenant: str, policy: str) -> None:
    world.catalog.add_version(
        f"credits-{tenant}",
        kind="credit",
        tenant_id=tenant,
        content={"late_events": policy},
        effective_at=0,
        source="test",
        clock=world.clock,
    )


@pytest.mark.parametrize(("policy", "charged"), [("charge", 5), ("free", 2)])
def test_an_event_beyond_the_window_is_kept_flagged_and_charged_by_policy(
    world: World, policy: str, charged: int
) -> None:
    tenant = f"late-{policy}"
    charge_late_events(world, tenant, policy)
    late = [usage(world, tenant, number, days_old=30) for number in range(3)]
    on_time = [usage(world, tenant, number, days_old=6) for number in range(3, 5)]
    assert world.send(late + on_time).accepted == 5
    world.settle()
    world.send(late)  # again
    world.settle()
    totals = world.totals(tenant)
    assert (totals["calls"], totals["late_events"]) == (5, 3)
    assert Decimal(totals["cost_usd"]) == 5 * COST, "what it cost us is another question"
    assert Decimal(totals["credits"]) == charged * CREDITS
    assert charged_to(world, tenant) == charged * CREDITS
    assert calls_on_day(world, tenant, days_ago=30) == 3, "counted in its own time"
    assert world.verifier.violations() == []


def charged_to(world: World, tenant: str) -> Decimal:
    return -Decimal(world.ledger.balance(tenant).available) / 10**6


def calls_on_day(world: World, tenant: str, days_ago: int) -> int:
    then = world.clock.now() - days_ago * DAY
    start, end = then // HOUR * HOUR - HOUR, then // HOUR * HOUR + 2 * HOUR
    (row,) = world.stats.query(StatsQuery(start, end, filters={"tenant": tenant}))
    return int(row["calls"])
