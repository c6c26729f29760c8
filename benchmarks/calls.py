"""Authorize and settle model calls in one process: pairs a second, and CPU of each.

    python -m benchmarks.calls [--seconds 5] [--callers 8]

The whole money path on real stores: estimate, hold, price, event through the door, capture.
CPU is that of this process alone (all its threads); PostgreSQL has its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tallystick.access import Principal
from tallystick.catalog import Catalog
from tallystick.clock import SystemClock
from tallystick.enforcement.authorization import Authorizer
from tallystick.enforcement.calls import CallAsk, Calls, Usage
from tallystick.events.appending import JudgingAppender
from tallystick.events.dedup import DedupIndex
from tallystick.events.door import Door
from tallystick.events.redaction import Redactor
from tallystick.ids import Uuid7Source
from tallystick.ledger import GrantRequest, Ledger
from tallystick.ledger.committer import LANES, Committer
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log import PostgresLog
from tallystick.plumbing.postgres import BY_INDEX, make_async_pool, migrate_postgres, open_pool

ACCOUNTS = 20


class Result(msgspec.Struct):
    """What was measured."""

    callers: int
    is_waiting: bool
    pairs_per_second: float
    cpu_ms_per_pair: float
    authorize_ms_median: float
    settle_ms_median: float
    settle_ms_p99: float


@contextlib.contextmanager
def parts(folder: Path) -> Iterator[tuple[str, Ledger, Any]]:
    """Stores, ledger and what makes calls of a committer."""
    clock = SystemClock()
    data = DataFolder(folder)
    postgres = EmbeddedPostgres(data)
    postgres.start()
    with contextlib.ExitStack() as stack:
        stack.callback(data.close)
        stack.callback(postgres.stop)
        migrate_postgres(postgres.url)
        pool = open_pool(postgres.url, connections_max=6)
        stack.callback(pool.close)
        clickhouse = ClickHouse(f"chdb://{folder / 'facts'}")
        migrate_clickhouse(clickhouse)
        stack.callback(clickhouse.close)
        catalog = Catalog(pool)
        catalog.seed_if_empty(clock.now())
        index = DedupIndex(folder / "dedup")
        stack.callback(index.close)
        door = Door(JudgingAppender(PostgresLog(pool), index), Redactor(b"k" * 32), clock)
        door.start()
        stack.callback(door.close)
        ledger = Ledger(pool, clock, Uuid7Source(clock))

        def make(committer: Committer) -> Calls:
            authorizer = Authorizer(committer)
            return Calls(authorizer, ledger, door, catalog, clock, pool, clickhouse)

        yield postgres.url, ledger, make


async def measure(
    url: str, ledger: Ledger, make: Any, *, callers: int, seconds: float, is_waiting: bool
) -> Result:
    """Let callers authorize and settle, one after the other each."""
    mark = f"m{callers}-{is_waiting}"
    lanes = make_async_pool(url, connections=LANES + 1, settings=BY_INDEX)
    committer = Committer(ledger, lanes)
    await committer.open()
    calls = make(committer)
    authorized: list[float] = []
    settled: list[float] = []

    async def call(name: str, number: int) -> None:
        tenant = f"t{number % ACCOUNTS}"
        principal = Principal(f"key:{tenant}", frozenset(), frozenset(), tenant)
        begin = time.perf_counter()
        permit = await calls.authorize(
            CallAsk(
                principal=principal,
                provider="openai",
                model="gpt-4o",
                tokens_input=1000,
                tokens_output_max=500,
                attribution={"feature": "chat", "team": "search", "user": "u1"},
                request_id=name,
                idempotency_key=name,
            )
        )
        middle = time.perf_counter()
        usage = Usage(tokens_input=900, tokens_output=number % 400)
        await calls.settle(permit, usage, is_waiting=is_waiting)
        authorized.append(middle - begin)
        settled.append(time.perf_counter() - middle)

    async def caller(place: int, until: float) -> None:
        number = place
        while time.perf_counter() < until:
            await call(f"{mark}-{place}-{number}", number)
            number += callers

    await call(f"{mark}-warm", 0)
    authorized.clear()
    settled.clear()
    cpu, begin = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller(place, begin + seconds) for place in range(callers)))
    took, cpu = time.perf_counter() - begin, time.process_time() - cpu
    await calls.close()
    await committer.close()
    count = len(settled)
    settled.sort()
    authorized.sort()
    return Result(
        callers=callers,
        is_waiting=is_waiting,
        pairs_per_second=round(count / took, 1),
        cpu_ms_per_pair=round(cpu / count * 1000, 3),
        authorize_ms_median=round(authorized[count // 2] * 1000, 2),
        settle_ms_median=round(settled[count // 2] * 1000, 2),
        settle_ms_p99=round(settled[count * 99 // 100] * 1000, 2),
    )


def run(*, seconds: float = 5, callers: tuple[int, ...] = (1, 8, 32)) -> list[Result]:
    """Measure with different numbers of callers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        parts(Path(folder)) as (url, ledger, make),
    ):
        for number in range(ACCOUNTS):
            ledger.put_account(f"t{number}", tenant_id=f"t{number}")
            ledger.apply(GrantRequest(account_id=f"t{number}", units=10**12, idempotency_key="g"))
        return [
            asyncio.run(
                measure(url, ledger, make, callers=count, seconds=seconds, is_waiting=is_waiting)
            )
            for count in callers
            for is_waiting in (True, False)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 8, 32])
    options = parser.parse_args()
    for result in run(seconds=options.seconds, callers=tuple(options.callers)):
        print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
