"""The cost of a rate check in one process: microseconds a check, by how many limits match.

    make bench ARGS=rates

One event loop, 1,000 keys in turn, the machine's clock; CPU time of the process, so that a busy
machine does not count. "none" is what every request
pays where no limit is set.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from tallystick.access import Principal
from tallystick.clock import SystemClock
from tallystick.enforcement.rates import RateLimit, RateLimiter

CHECKS = 100_000
RUNS = 5
KEYS = 1_000
_MANY = 10**9


def limits(count: int) -> list[RateLimit]:
    """The first `count` of: global, tier, and both in tokens, tenant, tenant in tokens."""
    kinds = [
        ("global", "", "requests"),
        ("tier", "free", "requests"),
        ("global", "", "tokens"),
        ("tier", "free", "tokens"),
        ("tenant", "", "requests"),
        ("tenant", "", "tokens"),
    ]
    return [
        RateLimit(f"{kind}/{asset}", "acme" * (kind == "tenant"), kind, name, asset, _MANY, _MANY)
        for kind, name, asset in kinds[:count]
    ]


async def microseconds_per_check(count: int) -> float:
    limiter = RateLimiter(SystemClock())
    limiter.configure(limits(count))
    keys = [
        Principal("key", frozenset(), frozenset(), "acme", f"k{number}", tier="free")
        for number in range(KEYS)
    ]
    started = time.process_time()
    for number in range(CHECKS):
        await limiter.check(keys[number % KEYS], route="/v1/holds", tokens=100)
    return (time.process_time() - started) / CHECKS * 1_000_000


def main() -> None:
    print("| limits that match | CPU microseconds a check (median of 5) |\n| --- | --- |")
    for count in (0, 1, 2, 4, 6):
        runs = [asyncio.run(microseconds_per_check(count)) for _ in range(RUNS)]
        print(f"| {count or 'none'} | {statistics.median(runs):.2f} |")


if __name__ == "__main__":
    main()
