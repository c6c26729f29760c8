"""A caller under a budget as a process of its own, to be killed at any moment.

    python -m tests.budget_racer CONFIG      (a file of JSON: see Config)

Asks for its calls all at once, through a committer and an authorizer of its own on the
database that others use too. A call that is declined but may fit later is asked again. Its
clock is the machine's plus an offset in a file, so that a test can step over a border.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from random import Random

import msgspec

from tallystick.clock import SystemClock
from tallystick.enforcement.authorization import Actual, Ask, Authorizer
from tallystick.enforcement.budgets import Budgets
from tallystick.enforcement.budgets.enforcing import Enforcing
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.ledger.committer import LANES, Committer
from tallystick.plumbing.postgres import BY_INDEX, make_async_pool, open_pool


class Config(msgspec.Struct):
    """What a racer is told."""

    url: str
    folder: str
    name: str
    account_id: str
    calls: int
    hold_units: int
    cost_units: int
    ttl_seconds: int = 2
    tries: int = 200
    think_ms_max: int = 60
    go: str = "go"
    """The file whose coming starts the race."""


class SteppedClock:
    """The machine's clock plus an offset that a test writes into a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._clock = SystemClock()

    def now(self) -> int:
        return self._clock.now() + int(self._path.read_text() or 0)


class Racer:
    """All calls of one process."""

    def __init__(self, config: Config, authorizer: Authorizer) -> None:
        self.config = config
        self.authorizer = authorizer
        self.random = Random(config.name)

    async def call(self, number: int) -> None:
        config = self.config
        for attempt in range(config.tries):
            outcome = await self.authorizer.hold(
                Ask(
                    account_id=config.account_id,
                    tenant_id="",
                    credit_units=1,
                    usd_units=config.hold_units,
                    attribution={"team": "race"},
                    ttl_seconds=config.ttl_seconds,
                    idempotency_key=f"{config.name}-{number}-{attempt}",
                )
            )
            if outcome.status == "posted":
                # the model thinks
                await asyncio.sleep(self.random.uniform(0.3, 1) * config.think_ms_max / 1000)
                await self.authorizer.capture(
                    outcome.hold_id,
                    Actual(credit_units=1, usd_units=config.cost_units),
                    idempotency_key="c",
                    tenant_id="",
                )
                return
            if outcome.retry == "never":
                return
            await asyncio.sleep(self.random.uniform(0.01, 0.05))


async def race(config: Config) -> None:
    clock = SteppedClock(Path(config.folder) / "offset")
    pool = open_pool(config.url, connections_max=2)
    ledger = Ledger(pool, clock, Uuid7Source(clock))
    lanes = make_async_pool(config.url, connections=LANES + 1, settings=BY_INDEX)
    committer = Committer(ledger, lanes)
    await committer.open()
    authorizer = Authorizer(committer, Enforcing(Budgets(pool, clock), clock))
    racer = Racer(config, authorizer)
    (Path(config.folder) / f"ready-{config.name}").touch()
    deadline = time.monotonic() + 60
    while not (Path(config.folder) / config.go).exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    await asyncio.gather(*(racer.call(number) for number in range(config.calls)))
    await committer.close()
    pool.close()


if __name__ == "__main__":
    asyncio.run(race(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Config)))
