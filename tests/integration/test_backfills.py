"""Backfills on real stores: what is rated again converges, once, and can be undone."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tallystick.errors import Conflict, InvalidInput, NotFound
from tests.backfills import BackfillWorld, cost_card
from tests.world import World


@pytest.fixture
def backfills(world: World) -> BackfillWorld:
    return BackfillWorld(world)


def usage(world: World, tenant: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "token_usage",
        "event_time": world.at(-number * 60),
        "tenant_id": tenant,
        "run_id": f"r{number % 4}",
        "attempt": 1 + number % 2,
        "user_id": f"u{number % 3}",
        "provider": "p",
        "model": "m",
        "tokens_input": 1000 + number,
        "tokens_output": 10,
    } | more


def send(world: World, tenant: str, count: int) -> int:
    """Usage, tool calls, a runtime, a stated cost; returns the tokens of calls."""
    messages = [usage(world, tenant, number) for number in range(count)]
    common = {"tenant_id": tenant, "run_id": "r1", "attempt": 2, "event_time": world.at(-5)}
    messages += [
        {**common, "event_id": "t", "event_type": "tool_call_finished", "tool": "search"},
        {**common, "event_id": "a", "event_type": "attempt_finished", "latency_ms": 1250.5},
        {
            **common,
            "event_id": "n",
            "event_type": "token_usage",
            "run_id": "",
            "tokens_input": 7,
            "model": "m",
            "provider": "p",
        },
        {**common, "event_id": "end", "event_type": "run_completed"},
    ]
    receipt = world.send(messages)
    assert receipt.accepted == len(messages), receipt
    return sum(one.get("tokens_input", 0) + one.get("tokens_output", 0) for one in messages)


def test_a_wrong_price_is_set_right_once_and_undone_to_the_unit(backfills: BackfillWorld) -> None:
    """Ledger, charge lines, stats by every interval and verify agree at each step."""
    world, tenant = backfills.world, "wrong-price"
    backfills.set_prices(tenant, "1", "1")
    tokens = send(world, tenant, 40)
    world.settle()
    before = backfills.everything(tenant)
    assert Decimal(before["total"]["cost_usd"]) == Decimal(tokens) / 10**6

    backfills.set_prices(tenant, "3", "2")
    world.settle()
    assert backfills.everything(tenant) == before  # a later version alone changes nothing
    done = backfills.run(tenant)
    after = backfills.everything(tenant)
    assert done["status"] == "done"
    assert Decimal(after["total"]["cost_usd"]) == 3 * Decimal(tokens) / 10**6
    assert after["total"]["calls"] == before["total"]["calls"]
    assert after["total"]["runs"] == before["total"]["runs"]
    total = done["report"]["total"]
    assert total["cost_usd"]["before"] == before["total"]["cost_usd"]
    assert total["cost_usd"]["after"] == after["total"]["cost_usd"]
    assert (total["events"], total["corrected"]) == (43, 43)
    assert done["report"]["affected_runs"] == 5

    again = backfills.run(tenant)
    assert again["report"]["total"]["corrected"] == 0
    assert backfills.everything(tenant) == after

    undo = backfills.revert(done["backfill_id"])
    backfills.work()
    assert backfills.everything(tenant) == before
    assert backfills.service.get(done["backfill_id"])["status"] == "reverted"
    assert backfills.service.get(undo)["progress"]["skipped"] == 0

    backfills.revert(undo)
    backfills.work()
    assert backfills.everything(tenant) == after
    assert backfills.service.get(done["backfill_id"])["status"] == "done"
