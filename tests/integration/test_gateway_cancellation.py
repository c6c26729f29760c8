"""A gateway's call that is cancelled at any of its waits, as a shutdown does, leaves no hold."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tallystick.access import Principal
from tallystick.clock import SystemClock
from tallystick.enforcement.authorization import Authorizer
from tallystick.enforcement.calls import Calls
from tallystick.errors import NotFound
from tallystick.gateway.attribution import CallPlace
from tallystick.gateway.calling import Call, Calling
from tallystick.gateway.door import TokenRate
from tallystick.gateway.health import Health
from tallystick.gateway.keys import KeyRing, ProviderKeys
from tallystick.gateway.outbound import Outbound
from tallystick.gateway.settings import GatewaySettings, check_settings
from tallystick.gateway.settings import Upstream as UpstreamSettings
from tallystick.gateway.surfaces.openai_chat import CHAT
from tallystick.ids import Uuid7Source
from tallystick.ledger import GrantRequest
from tallystick.ledger.committer import LANES, Committer
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.postgres import BY_INDEX, make_async_pool
from tests.cancelling import cancelled_at
from tests.upstream.running import Upstream
from tests.world import World

ACME = Principal("key:k1", frozenset(), frozenset({"*"}), tenant_id="acme", key_id="k1")


class Unlimited:
    """The door of who has no rate limits."""

    async def correct_tokens(self, principal: Principal, tokens: int) -> None:
        """Nothing counts them."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    running = Upstream()
    yield running
    running.stop()


def call_of(request_id: str, *, is_stream: bool) -> Call:
    body: dict[str, Any] = {"model": "gpt-4o", "max_tokens": 20, "stream": is_stream}
    body["messages"] = [{"role": "user", "content": "#normal in=10 out=5#"}]
    door: Any = Unlimited()
    return Call(
        CHAT,
        CHAT.read(msgspec.json.encode(body)),
        ACME,
        CallPlace(request_id, "", "", 1, "", {}),
        {"Content-Type": "application/json"},
        request_id,
        TokenRate(door, ACME, 0),
    )


async def answered(calling: Calling, call: Call) -> None:
    """Make the call, and pass its answer on to a client that takes it."""

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        await asyncio.sleep(0)

    response = await calling.answer(call)
    assert response.status_code == 200
    await response({"type": "http", "method": "POST"}, receive, send)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_call_that_is_cancelled_anywhere_is_ended(
    world: World, postgres_url: str, clickhouse: ClickHouse, upstream: Upstream, is_stream: bool
) -> None:
    world.ledger.put_account("acme", tenant_id="acme")
    world.ledger.apply(
        GrantRequest(account_id="acme", units=1_000_000_000, idempotency_key="first")
    )
    settings = check_settings(
        GatewaySettings(
            upstreams={
                "openai": UpstreamSettings("openai", base_url=f"{upstream.url}/v1", api_key="sk")
            },
            retries=0,
        ),
        {},
    )
    clock = SystemClock()

    async def every_wait() -> int:
        pool = make_async_pool(postgres_url, connections=LANES + 1, settings=BY_INDEX)
        committer = Committer(world.ledger, pool)
        await committer.open()
        calls = Calls(
            Authorizer(committer),
            world.ledger,
            world.door,
            world.catalog,
            world.clock,
            world.pool,
            clickhouse,
        )
        keys = KeyRing(ProviderKeys(ConnectionPool("", open=False), "secret", clock))
        outbound = Outbound()
        health = Health(clock, 0.2, random.Random(1).random)
        calling = Calling(calls, outbound, settings, keys, health, Uuid7Source(clock))
        at = -1
        is_cancelled = True
        while is_cancelled:
            at += 1
            call = call_of(f"stream-{is_stream}-{at}", is_stream=is_stream)
            is_cancelled = await cancelled_at(answered(calling, call), at)
        deadline = time.monotonic() + 10
        while (held := world.ledger.balance("acme").held) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        await calling.close()
        await outbound.close()
        await calls.close()
        await committer.close()
        assert not held, _open_holds(postgres_url)
        assert not health._under_way["openai"]
        return at

    last = asyncio.run(every_wait())
    assert last >= 4
    billed = {one["request_id"]: one["is_finished"] for one in upstream.truth()}
    world.settle()
    counted = [_usages(world, f"stream-{is_stream}-{at}") for at in range(last + 1)]
    assert len(counted[0]) == 0 and len(counted[last]) == 1
    for at, usages in enumerate(counted):
        assert len(usages) <= 1
        assert usages or f"stream-{is_stream}-{at}" not in billed


def _usages(world: World, run_id: str) -> list[dict[str, Any]]:
    try:
        story = world.runs.get(run_id, "acme")
    except NotFound:
        return []
    return [one for one in story["timeline"] if one["event_type"] == "token_usage"]


def _open_holds(postgres_url: str) -> list[Any]:
    with psycopg.connect(postgres_url) as connection:
        return connection.execute("SELECT * FROM ledger.hold").fetchall()
