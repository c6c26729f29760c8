"""A process with a guard of its own: says when it begins to refuse work, and when it ends to.

    python -m tests.guard_process POSTGRES_URL KEY

Prints "ready", then a line `blocked <monotonic ns>` or `free <monotonic ns>` at each change.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tallystick.clock import SystemClock
from tallystick.enforcement.authorization import Ask
from tallystick.enforcement.overrun import MitigationGuard
from tallystick.errors import Blocked
from tallystick.plumbing.postgres import open_pool

_LIFE_SECONDS = 60


async def watch(guard: MitigationGuard, ask: Ask) -> None:
    was_blocked = False
    deadline = time.monotonic() + _LIFE_SECONDS
    while time.monotonic() < deadline:
        try:
            await guard.check(ask)
            is_blocked = False
        except Blocked:
            is_blocked = True
        if is_blocked != was_blocked:
            say(f"{'blocked' if is_blocked else 'free'} {time.monotonic_ns()}")
            was_blocked = is_blocked
        await asyncio.sleep(0.005)


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    pool = open_pool(sys.argv[1], connections_max=1)
    guard = MitigationGuard(pool, SystemClock())
    guard.start()
    say("ready")
    ask = Ask(
        account_id="acme",
        tenant_id="acme",
        credit_units=1,
        attribution={"key": sys.argv[2]},
        idempotency_key="k",
    )
    asyncio.run(watch(guard, ask))


if __name__ == "__main__":
    main()
