"""A process that asks a shared limiter as often as it can, and prints how much it was granted."""

from __future__ import annotations

import asyncio
import sys
import time

from psycopg_pool import ConnectionPool

from tallystick.clock import SystemClock
from tallystick.enforcement.rates import RateLimiter
from tallystick.enforcement.rates.lanes import Lender
from tallystick.enforcement.rates.redis_lender import RedisLender
from tallystick.enforcement.rates.store import PostgresLender, RateLimitStore
from tallystick.plumbing.postgres import open_pool
from tests.rates.test_rules import caller


def lender_of(pool: ConnectionPool, redis_url: str) -> Lender:
    return RedisLender(redis_url) if redis_url else PostgresLender(pool)


async def ask(url: str, seconds: float) -> int:
    pool, clock = open_pool(url, connections_max=4), SystemClock()
    limiter = RateLimiter(clock, lender_of(pool, sys.argv[2]))
    limiter.configure(RateLimitStore(pool, clock).load())
    granted, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        decision = await limiter.check(caller("k1"), route="/v1/x")
        granted += decision.allowed
        if not decision.allowed:
            await asyncio.sleep(0.01)
    await limiter.close()
    pool.close()
    return granted


def main() -> None:
    sys.stdin.readline()  # all begin together
    sys.stdout.write(f"{asyncio.run(ask(sys.argv[1], 2.0))}\n")


if __name__ == "__main__":
    main()
