"""The money path of one model call, on real stores."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from tallystick.access import Principal
from tallystick.enforcement.authorization import Authorizer
from tallystick.enforcement.calls import CallAsk, Calls, CallSettings, Usage
from tallystick.ledger import GrantRequest
from tallystick.ledger.committer import LANES, Committer
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.postgres import BY_INDEX, make_async_pool
from tests.world import World

T = TypeVar("T")
ACME = Principal("key:k1", frozenset(), frozenset({"*"}), tenant_id="acme", key_id="k1")


class Scene:
    """Calls over a world: each step in an event loop of its own."""

    def __init__(self, world: World, url: str, clickhouse: ClickHouse, **settings: Any) -> None:
        self.world = world
        self.clickhouse = clickhouse
        self.url = url
        self.settings = CallSettings(**settings)

    def run(self, step: Callable[[Calls], Awaitable[T]]) -> T:
        async def inside() -> T:
            pool = make_async_pool(self.url, connections=LANES + 1, settings=BY_INDEX)
            committer = Committer(self.world.ledger, pool)
            await committer.open()
            try:
                return await step(self.calls(committer))
            finally:
                await committer.close()

        return asyncio.run(inside())

    def calls(self, committer: Committer) -> Calls:
        world = self.world
        return Calls(
            Authorizer(committer),
            world.ledger,
            world.door,
            world.catalog,
            world.clock,
            world.pool,
            self.clickhouse,
            settings=self.settings,
        )


@pytest.fixture
def scene(world: World, postgres_url: str, clickhouse: ClickHouse) -> Scene:
    world.ledger.put_account("acme", tenant_id="acme")
    world.ledger.apply(
        GrantRequest(account_id="acme", units=1_000_000_000, idempotency_key="first")
    )
    return Scene(world, postgres_url, clickhouse)


def ask(name: str, **more: Any) -> CallAsk:
    return CallAsk(
        **{
            "principal": ACME,
            "provider": "openai",
            "model": "gpt-4o",
            "tokens_input": 1000,
            "tokens_output_max": 500,
            "request_id": f"req-{name}",
            "idempotency_key": name,
            **more,
        }
    )


def test_a_call_is_held_charged_and_counted_once(scene: Scene) -> None:
    usage = Usage(tokens_input=900, tokens_output=100, tokens_cache_read=400)

    async def step(calls: Calls) -> Any:
        permit = await calls.authorize(ask("one", attribution={"feature": "chat", "user": "u1"}))
        held = scene.world.ledger.balance("acme").held
        first = await calls.settle(permit, usage, latency_ms=12.5)
        again = await calls.settle(permit, usage, latency_ms=12.5)
        return permit, held, first, again

    permit, held, first, again = scene.run(step)
    assert held == permit.credit_units > 0
    assert first == again
    # 500 x 2.5 + 400 x 1.25 + 100 x 10 USD a million; 120 credits a USD
    assert first.cost_usd_units == 2_750_000
    assert first.credit_units == first.charged_units == 330_000
    scene.world.settle()
    totals = scene.world.totals("acme")
    assert totals["calls"] == 1
    balance = scene.world.ledger.balance("acme")
    assert balance.held == 0
    assert balance.captured - balance.refunded == 330_000
    charge = scene.world.ledger.load_run_charge("acme", "req-one")
    assert charge is not None
    assert (charge.target, charge.charged, charge.shortfall) == (330_000, 330_000, 0)
