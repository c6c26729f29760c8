"""What a process that dies leaves of its calls is finished once, at whatever point it died."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tallystick.access import Principal
from tallystick.clock import HOUR
from tallystick.enforcement.authorization import Authorizer
from tallystick.enforcement.calls import Calls, Usage
from tallystick.enforcement.calls.facts import CallFact, CallFacts
from tallystick.enforcement.calls.recovery import CallRecovery, limits_used
from tallystick.enforcement.calls.store import CallStore
from tallystick.errors import Conflict
from tallystick.events.appending import JudgingAppender
from tallystick.events.dedup import DedupIndex
from tallystick.ledger import GrantRequest, LimitPart
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.postgres import open_pool
from tallystick.workers.calls import CallKeeper, LazyAppender
from tests.integration.test_calls import Scene, ask
from tests.world import World

USED = Usage(tokens_input=900, tokens_output=100)
WORTH = (900 * 2_500 + 100 * 10_000) * 120 // 1000
"""CREDIT/6 of that usage of gpt-4o."""


class Died(Exception):
    """The process dies here."""


class DyingAuthorizer(Authorizer):
    """Dies when it is asked to capture: the event is durable then."""

    async def cover(self, *_: Any, **__: Any) -> Any:
        raise Died

    async def capture(self, *_: Any, **__: Any) -> Any:
        raise Died


@pytest.fixture
def scene(world: World, postgres_url: str, clickhouse: ClickHouse) -> Scene:
    world.ledger.put_account("acme", tenant_id="acme")
    world.ledger.apply(
        GrantRequest(account_id="acme", units=1_000_000_000, idempotency_key="first")
    )
    return Scene(world, postgres_url, clickhouse)


class ForgetfulStore(CallStore):
    """The process dies before it notes what it did."""

    def insert_judged(self, *_: Any) -> None:
        """Note nothing."""


def recovery_of(scene: Scene, store: CallStore | None = None, **more: Any) -> CallRecovery:
    def append(body: bytes) -> None:
        index = DedupIndex(world.folder / "calls-index")  # a second way into the log
        appender = JudgingAppender(world.log, index)
        LazyAppender(lambda: appender, world.door.redactor, world.clock).append(body)
        index.close()

    world = scene.world
    return CallRecovery(
        store or CallStore(world.pool),
        CallFacts(scene.clickhouse),
        world.ledger,
        append,
        world.door.redactor,
        world.clock,
        young_micros=0,
        **more,
    )


def charge_of(scene: Scene, run_id: str) -> tuple[int, int, int]:
    charge = scene.world.ledger.load_run_charge("acme", run_id)
    assert charge is not None
    return charge.target, charge.charged, charge.shortfall


def die_between_event_and_capture(scene: Scene, name: str, **more: Any) -> Any:
    async def step(calls: Calls) -> Any:
        permit = await calls.authorize(ask(name, **more))
        calls._authorizer = DyingAuthorizer(calls._authorizer._committer)
        with pytest.raises(Died):
            await calls.settle(permit, USED)
        return permit

    return scene.run(step)


@pytest.mark.parametrize("charger_first", [True, False])
def test_an_event_without_its_capture_is_captured_once(scene: Scene, charger_first: bool) -> None:
    name = f"heard-{charger_first}"
    permit = die_between_event_and_capture(scene, name)
    if charger_first:
        scene.world.settle()
    else:
        while scene.world.sink.step():
            pass
    recovery = recovery_of(scene)
    assert recovery.run().captured == 1
    assert recovery.run().captured == 0
    scene.world.settle()
    assert charge_of(scene, f"req-{name}") == (WORTH, WORTH, 0)
    assert scene.world.ledger.balance("acme").held == 0
    # the client, or another process, sends its settlement again: nothing more is charged
    again = scene.run(lambda calls: calls.settle(permit, USED))
    assert again.credit_units == WORTH
    scene.world.settle()
    assert charge_of(scene, f"req-{name}") == (WORTH, WORTH, 0)
    assert scene.world.ledger.verify() == []


def test_a_capture_by_recovery_counts_what_was_used_of_a_usd_budget(scene: Scene) -> None:
    async def left(calls: Calls) -> Any:
        return (await calls.run_budgets.load("acme", "big")).remaining_units

    async def step(calls: Calls) -> Any:
        await calls.run_budgets.put("acme", "big", asset="USD/9", amount_units=10**9)
        permit = await calls.authorize(ask("usd", root_run_id="big", run_id="big-1"))
        calls._authorizer = DyingAuthorizer(calls._authorizer._committer)
        with pytest.raises(Died):
            await calls.settle(permit, USED)

    scene.run(step)
    scene.world.settle()
    assert recovery_of(scene).run().captured == 1
    assert scene.run(left) == 10**9 - (900 * 2_500 + 100 * 10_000)


def test_a_call_nobody_heard_of_is_what_policy_says_also_in_a_run_with_facts(
    scene: Scene,
) -> None:
    """Nothing was durable but the hold: it becomes unknown, then an estimated event."""

    async def step(calls: Calls) -> Any:
        heard = await calls.authorize(ask("h", run_id="mixed"))
        lost = await calls.authorize(ask("l", run_id="mixed", ttl_seconds=1))
        await calls.settle(heard, USED)
        return lost

    lost = scene.run(step)
    scene.world.settle()
    end_of(scene, lost.hold_id)
    recovery = recovery_of(scene, heard_within=-HOUR)
    keeper = CallKeeper(recovery, scene.world.clock)
    assert keeper.step()
    assert not keeper.step()  # it looked a moment ago
    assert recovery.run().judged == 0
    scene.world.settle()
    estimate = (1000 * 2_500 + 500 * 10_000) * 120 // 1000
    assert charge_of(scene, "mixed") == (WORTH + estimate, WORTH + estimate, 0)
    assert scene.world.ledger.balance("acme").held == 0
    with pytest.raises(Conflict):  # too late: policy has spoken
        scene.run(lambda calls: calls.settle(lost, USED))
    assert scene.world.ledger.verify() == []


def test_a_late_settlement_before_policy_spoke_counts(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        return await calls.authorize(ask("late", ttl_seconds=1))

    late = scene.run(step)
    end_of(scene, late.hold_id)
    receipt = scene.run(lambda calls: calls.settle(late, USED))
    assert receipt.credit_units == WORTH
    scene.world.settle()
    assert recovery_of(scene, heard_within=-HOUR).run().judged == 1  # found: nothing is added
    scene.world.settle()
    assert charge_of(scene, "req-late") == (WORTH, WORTH, 0)
    assert scene.world.totals("acme")["calls"] >= 1


def end_of(scene: Scene, hold_id: str) -> None:
    """Let a hold's time pass, and the hour after it, without waiting."""
    pool = open_pool(scene.url, connections_max=1)
    try:
        for _ in range(2):
            with pool.connection() as connection:
                connection.execute(
                    "UPDATE ledger.hold SET due_at = 1 WHERE hold_id = %s", [hold_id]
                )
            scene.world.ledger.settle_due()
    finally:
        pool.close()


def test_two_recoveries_at_once_capture_once(scene: Scene) -> None:
    die_between_event_and_capture(scene, "twice")
    scene.world.settle()

    async def both() -> list[int]:
        runs = [asyncio.to_thread(recovery_of(scene).run) for _ in range(2)]
        return [one.captured for one in await asyncio.gather(*runs)]

    asyncio.run(both())
    scene.world.settle()
    assert charge_of(scene, "req-twice") == (WORTH, WORTH, 0)
    assert scene.world.ledger.verify() == []


@pytest.mark.parametrize("policy", ["capture", "release"])
def test_a_repeat_of_policy_counts_once_and_release_counts_nothing(
    scene: Scene, policy: str
) -> None:
    """The event was appended, the note of it was not: the next round says the same again."""
    tenant = f"policy-{policy}"
    scene.world.ledger.put_account(tenant, tenant_id=tenant, unknown_policy=policy)
    scene.world.ledger.apply(GrantRequest(account_id=tenant, units=10**9, idempotency_key="g"))
    principal = Principal("key:p", frozenset(), frozenset(), tenant_id=tenant)

    async def step(calls: Calls) -> Any:
        return await calls.authorize(ask(tenant, principal=principal, ttl_seconds=1))

    lost = scene.run(step)
    end_of(scene, lost.hold_id)
    for store in (ForgetfulStore(scene.world.pool), CallStore(scene.world.pool)):
        assert recovery_of(scene, store, heard_within=-HOUR).run().judged == 1
    scene.world.settle()
    estimate = (1000 * 2_500 + 500 * 10_000) * 120 // 1000 if policy == "capture" else 0
    balance = scene.world.ledger.balance(tenant)
    assert (balance.held, balance.captured - balance.refunded) == (0, estimate)
    assert scene.world.ledger.verify() == []


def test_a_free_call_that_is_recovered_is_a_request() -> None:
    """As one is that its own process captured."""
    assets = {"calls": "requests", "spent": "USD/9", "credits": "CREDIT/6"}
    free = CallFact(credit_units=0, cost_units=0, tokens=0)
    assert limits_used(list(assets), assets, free) == (
        LimitPart("calls", 1),
        LimitPart("spent", 0),
    )


def test_a_recovered_call_that_cost_more_than_its_hold_is_paid_whole(scene: Scene) -> None:
    permit = die_between_event_and_capture(scene, "dear", tokens_output_max=1, tokens_input=1)
    while scene.world.sink.step():
        pass
    assert recovery_of(scene).run().captured == 1
    target, charged, shortfall = charge_of(scene, permit.run_id)
    assert charged == target > permit.credit_units and shortfall == 0
