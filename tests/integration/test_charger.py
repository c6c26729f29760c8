"""One run that cannot be charged is set aside, seen, and stops no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tallystick.bounds import AMOUNT_MAX
from tallystick.clock import MINUTE, FixedClock
from tallystick.ledger import UNITS_MAX
from tallystick.plumbing.log.heads import PostgresHeads
from tallystick.reconcile.freshness import Freshness
from tallystick.workers.pending import RETRY_AFTER, PendingRuns
from tests.world import World

DEAREST_UNITS = AMOUNT_MAX * 120 * 10**6
"""CREDIT/6 of the largest stated cost, by the shipped card."""


@pytest.fixture(autouse=True)
def clean(world: World) -> Iterator[None]:
    yield
    with world.pool.connection() as connection:
        connection.execute("DELETE FROM charger.pending_run")


def costs(world: World, tenant: str, run: str, count: int) -> list[dict[str, Any]]:
    return [
        {
            "event_id": f"{run}-{number}",
            "event_type": "cost",
            "event_time": world.at(),
            "tenant_id": tenant,
            "run_id": run,
            "cost_amount": str(AMOUNT_MAX),
            "cost_currency": "USD",
        }
        for number in range(count)
    ]


def usage(world: World, tenant: str) -> dict[str, Any]:
    return {
        "event_id": f"{tenant}-usage",
        "event_type": "tool_call_finished",
        "event_time": world.at(),
        "tenant_id": tenant,
        "run_id": "r",
        "tool": "search",
    }


def set_credits(world: World, tenant: str, content: dict[str, str]) -> None:
    """A credit card of a tenant's own."""
    world.catalog.add_version(
        f"credits-{tenant}",
        kind="credit",
        tenant_id=tenant,
        content=content,
        effective_at=0,
        source="test",
        clock=world.clock,
    )


def report(world: World) -> dict[str, Any]:
    heads = PostgresHeads([world.log, world.corrections])
    return Freshness(world.pool, heads, world.facts, world.clock).report()


def test_a_run_beyond_the_ledgers_bound_is_set_aside_and_others_are_charged(world: World) -> None:
    most = UNITS_MAX // DEAREST_UNITS
    world.send(costs(world, "vast", "big", most + 1))
    world.send([usage(world, "modest")])
    world.settle()
    charged = world.ledger.load_run_targets()
    assert charged["modest", "r"] == 50_000
    assert ("vast", "big") not in charged
    found = report(world)
    assert (found["followers"][-1]["pending_runs"], found["refused_runs"]) == (0, 1)
    assert [(one["tenant_id"], one["run_id"]) for one in found["refused"]] == [("vast", "big")]
    assert (
        "10080000000 credits; the ledger takes from 0 to 10000000000"
        in (found["refused"][0]["reason"])
    )
    assert world.verifier.violations() == []


def test_a_run_that_outgrows_the_bound_keeps_its_charge_in_ledger_and_lines(world: World) -> None:
    most = UNITS_MAX // DEAREST_UNITS
    world.send(costs(world, "grown", "g", most))
    world.settle()
    world.send(costs(world, "grown", "g", most + 1)[most:])
    world.settle()
    assert world.ledger.load_run_targets()["grown", "g"] == most * DEAREST_UNITS
    assert report(world)["refused_runs"] == 1
    assert world.verifier.violations() == []


def test_sums_of_a_run_do_not_wrap_at_64_bits(world: World) -> None:
    set_credits(world, "dear", {"token_markup": "1", "face_value_usd": "0.000005"})
    each = AMOUNT_MAX * 200_000 * 10**6
    count = 2**64 // each + 1  # in 64 bits the sum would be small and positive
    assert 0 < count * each % 2**64 < 2**62
    world.send(costs(world, "dear", "d", count))
    world.settle()
    rows = world.facts.query_attempts([("dear", "d")], 0)
    assert [int(row["credit_units"]) for row in rows] == [count * each]
    assert ("dear", "d") not in world.ledger.load_run_targets()
    assert report(world)["refused_runs"] == 1


def test_a_refused_run_is_due_again_when_touched_and_after_a_while(world: World) -> None:
    pending, clock = PendingRuns(world.pool), FixedClock(world.clock.now())

    def due() -> list[str]:
        now = clock.now()
        return [run.charge_key for run in pending.load_due(range(8), now, 10, now)]

    pending.mark_now({("t", "refused"): True}, clock.now())
    pending.refuse({pending.load_due(range(8), 0, 10, clock.now())[0]: "why"}, clock.now())
    assert due() == []
    pending.mark_now({("t", "refused"): False}, clock.now())
    assert due() == ["refused"]
    pending.refuse({pending.load_due(range(8), 0, 10, clock.now())[0]: "why"}, clock.now())
    clock.micros += RETRY_AFTER - MINUTE
    assert due() == []
    clock.micros += MINUTE
    assert due() == ["refused"]


def test_what_the_ledger_refuses_of_a_batch_is_found_and_set_aside(world: World) -> None:
    """The account of one tenant is full: nothing more fits into its 64 bits."""
    world.send([usage(world, "full")])
    world.settle()
    with world.pool.connection() as connection:
        connection.execute(
            "UPDATE ledger.balance SET debited = 9223372036854775807 - 1 WHERE account_id = 'full'"
        )
    world.send([{**usage(world, "full"), "event_id": "again", "run_id": "r2"}])
    world.send([usage(world, f"tenant-{number}") for number in range(7)])
    world.settle()
    charged = world.ledger.load_run_targets()
    assert all(charged[f"tenant-{number}", "r"] == 50_000 for number in range(7))
    found = report(world)["refused"]
    assert [(one["tenant_id"], one["run_id"]) for one in found] == [("full", "r2")]


def test_usage_without_a_run_is_charged_whatever_its_attempt(world: World) -> None:
    """No call of a minute is a retry of another one, and none fails for it."""
    set_credits(world, "loose", {"failed_runs": "free", "late_events": "free"})
    calls = [
        {**usage(world, "loose"), "event_id": f"{age}-{attempt}", "attempt": attempt, "run_id": ""}
        | {"event_time": world.at(-age)}
        for age in (120, 9 * 86_400)
        for attempt in (1, 2, 3)
    ]
    failed = {**calls[0], "event_id": "f", "event_type": "run_failed", "attempt": 1}
    world.send([*calls, failed])
    world.settle()
    row = world.totals("loose")
    assert (row["tool_calls"], row["credits"], row["retry_waste_credits"]) == (6, "0.15", "0")
    assert world.verifier.charge_differences() == []
