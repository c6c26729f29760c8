"""Access's speed: what a check costs, how soon a revocation counts, what row security costs.

    python -m benchmarks.access              all of it, about 2 minutes
    python -m benchmarks.access checks

Method. A fresh embedded PostgreSQL with fsync on. Checks: one process, one thread, the median
of many after a warm-up. Revocation: two Access instances on one database; one revokes and the
other is asked until it refuses. Row security: holds in groups of 50 on 100,000 accounts, with and
without the policies in turn; compared is the processor time of client and server together,
which other load on the machine moves less than time does.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import psutil
import psycopg

from benchmarks.ledger import ACCOUNTS, drive, holds, store
from tallystick.access import OPERATOR, Access, AccessSecret, Grant
from tallystick.clock import SystemClock
from tallystick.errors import Unauthorized
from tallystick.ids import Uuid7Source
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.outbound import OutboundPolicy
from tallystick.plumbing.postgres import migrate_postgres, open_pool

_TABLES = ("account", "balance", "lot", "hold", "operation", "run_charge")
_TURNS = 12


@contextmanager
def two() -> Iterator[tuple[Access, Access]]:
    """Two processes' worth of Access on one database."""
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name) / "data")
        postgres = EmbeddedPostgres(folder)
        postgres.start()
        migrate_postgres(postgres.url)
        pools = [open_pool(postgres.url, connections_max=3) for _ in range(2)]
        clock = SystemClock()
        made = [
            Access(
                pool,
                AccessSecret("benchmark"),
                clock,
                Uuid7Source(clock),
                admin_key="admin",
                issuer="http://here",
                outbound=OutboundPolicy(),
            )
            for pool in pools
        ]
        for one in made:
            one.start()
        try:
            yield made[0], made[1]
        finally:
            for one in made:
                one.close()
            for pool in pools:
                pool.close()
            postgres.stop()
            folder.close()


async def micros(access: Access, text: str, count: int = 20_000) -> float:
    await access.authenticate(text, "127.0.0.1")
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await access.authenticate(text, "127.0.0.1")
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def checks() -> list[str]:
    with two() as (one, other):
        grant = Grant(
            name="bench", tenant_id="acme", roles=("service",), addresses=("127.0.0.0/8",)
        )
        _, secret = one.create("key", grant, OPERATOR)
        client, client_secret = one.create("client", grant, OPERATOR)
        token, _ = one.token_for(f"client-{client.prefix}", client_secret, "", "127.0.0.1")
        lines = [
            f"| cached key check | {asyncio.run(micros(one, secret)):.1f} us |",
            f"| cached token check | {asyncio.run(micros(one, token)):.1f} us |",
            f"| first token check | {asyncio.run(first(one, token)):.0f} us |",
        ]
        delays = [asyncio.run(revocation(one, other)) for _ in range(10)]
        middle, most = statistics.median(delays) * 1000, max(delays) * 1000
        lines.append(
            f"| revocation seen by another process | {middle:.0f} ms, most {most:.0f} ms |"
        )
    return lines


async def first(access: Access, token: str) -> float:
    times = []
    for _ in range(50):
        access.known.forget()
        started = time.perf_counter()
        await access.authenticate(token, "127.0.0.1")
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


async def revocation(one: Access, other: Access) -> float:
    key, secret = one.create("key", Grant(name="b", tenant_id="a", roles=("viewer",)), OPERATOR)
    await other.authenticate(secret, "127.0.0.1")
    one.revoke("key", key.credential_id, OPERATOR)
    started = time.perf_counter()
    try:
        while True:
            await other.authenticate(secret, "127.0.0.1")
            await asyncio.sleep(0.002)
    except Unauthorized:
        return time.perf_counter() - started


def cpu_seconds() -> dict[int, float]:
    """Processor time so far of this process and each of its children."""
    used = {}
    for one in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            used[one.pid] = sum(one.cpu_times()[:2])
    return used


def row_security() -> list[str]:
    choose = Random(3)
    lines = []
    with store() as made:

        def switch(tables: tuple[str, ...], verb: str) -> None:
            with psycopg.connect(made.url, autocommit=True) as connection:
                for table in tables:
                    connection.execute(
                        f"ALTER TABLE ledger.{table} {verb} ROW LEVEL SECURITY".encode()
                    )

        def run(tag: str) -> float:
            requests = holds(tag, 6_000, account=lambda _: choose.randint(1, ACCOUNTS))
            before = cpu_seconds()
            drive(made.ledger, requests, 1, 50)
            after = cpu_seconds()
            spent = sum(after[pid] - before[pid] for pid in before.keys() & after.keys())
            return spent / len(requests) * 1e6

        run("warm")
        spent: dict[str, list[float]] = {"DISABLE": [], "ENABLE": []}
        for turn in range(_TURNS):
            for verb in ("DISABLE", "ENABLE"):
                switch(_TABLES, verb)
                run(f"{turn}{verb}w")
                spent[verb].append(run(f"{turn}{verb}"))
        without, within = (statistics.median(spent[verb]) for verb in ("DISABLE", "ENABLE"))
        lines.append(
            f"| hold with row security | {within:.1f} us of processor, {without:.1f} without: "
            f"{100 * (within / without - 1):+.1f}% |"
        )
    return lines


PARTS = {"checks": checks, "row_security": row_security}


def main(names: list[str]) -> None:
    for name in names or list(PARTS):
        for line in PARTS[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
