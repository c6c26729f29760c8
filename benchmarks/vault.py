"""How fast the vault follows: cost events a second from the log to committed state.

The log in PostgreSQL is filled first (half flat cost records, half token usage, 1,000 users, 50
projects), then followed once a run, from an empty vault. Wall time depends on what else the
machine does; CPU time of this process and of PostgreSQL's does not.

    python -m benchmarks.vault [EVENTS] [RUNS]

The hard case is that every user works in every project: fifty times the scopes.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
from psycopg_pool import ConnectionPool

from tallystick.catalog import Catalog
from tallystick.clock import Clock, SystemClock
from tallystick.enforcement.budgets import Budgets, BudgetTerms
from tallystick.enforcement.quotas import BudgetAssignments
from tallystick.enforcement.vault import Counting, VaultStore
from tallystick.events.batch import batch_of
from tallystick.events.model import Event
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log import CORRECTIONS, Positions, PostgresLog, PostgresSource
from tallystick.plumbing.log.heads import open_heads
from tallystick.plumbing.postgres import migrate_postgres, open_pool
from tallystick.workers.memory import LogMemory
from tallystick.workers.vault import VaultFollower

_USERS, _PROJECTS, _BATCH = 1_000, 50, 5_000
_MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1", "o3-mini")


class Measured(NamedTuple):
    """One run; CPU in microseconds an event."""

    events_per_second: float
    follower_cpu: float
    postgres_cpu: float


def make_events(
    number: int, count: int, now: int, choose: random.Random, is_spread: bool
) -> list[Event]:
    """Cost records and token usage of one moment, as a door would store them."""
    events = []
    for place in range(number, number + count):
        user = choose.randrange(_USERS)
        is_flat = place % 2 == 0
        events.append(
            Event(
                event_id=f"bench-{place}",
                event_type="cost" if is_flat else "token_usage",
                occurred_at=now + place * 100,
                received_at=now + place * 100,
                tenant_id="acme",
                run_id="" if is_flat else f"run-{place // 10}",
                user_id=f"user-{user}",
                project_id=f"project-{(choose.randrange(1000) if is_spread else user) % _PROJECTS}",
                provider="openai",
                model=choose.choice(_MODELS),
                operation="chat" if is_flat else "",
                tokens_input=choose.randrange(4_000),
                tokens_output=choose.randrange(800),
                cost_amount=f"0.{choose.randrange(10**6):06d}" if is_flat else "",
                cost_currency="USD" if is_flat else "",
                content_digest=place.to_bytes(16, "big"),
            )
        )
    return events


def fill(log: PostgresLog, total: int, now: int, is_spread: bool) -> None:
    """Append `total` events."""
    choose = random.Random(7)
    for number in range(0, total, _BATCH):
        events = make_events(number, min(_BATCH, total - number), now, choose, is_spread)
        batch = batch_of(events)
        log.append(batch.size, batch.columns, now, lambda _, size=batch.size: bytes(size))  # type: ignore[misc]


def measure(follower: VaultFollower, total: int, postgres: psutil.Process) -> Measured:
    """Follow the whole log once."""
    before = _postgres_cpu(postgres)
    cpu, began = time.process_time(), time.perf_counter()
    while follower.step():
        pass
    took, used = time.perf_counter() - began, time.process_time() - cpu
    server = _postgres_cpu(postgres) - before
    return Measured(total / took, used / total * 1e6, server / total * 1e6)


def _postgres_cpu(postmaster: psutil.Process) -> float:
    """CPU seconds of the server; its processes live as long as the pool's connections."""
    times = [one.cpu_times() for one in [postmaster, *postmaster.children(recursive=True)]]
    return sum(one.user + one.system for one in times)


def measure_all(total: int = 400_000, runs: int = 3) -> None:
    """Both cases, printed."""
    print(
        f"{total:,} events of the log in PostgreSQL, half flat cost records, half token usage of "
        f"{len(_MODELS)} models; {_USERS:,} users, {_PROJECTS} projects; from the log to committed "
        f"state; median of {runs}.\n\n"
        "| what | events/s | CPU of the follower | CPU of PostgreSQL |\n| --- | --- | --- | --- |"
    )
    for name, is_spread, has_budgets in (
        ("a user works in one project", False, False),
        ("every user works in every project", True, False),
        ("a user works in one project; the tenant and each user have a budget", False, True),
    ):
        found = measure_case(total, runs, is_spread, has_budgets)
        print(
            f"| {name} | {found.events_per_second:,.0f} | {found.follower_cpu:.1f} us an event "
            f"| {found.postgres_cpu:.1f} us an event |",
            flush=True,
        )


def counting_of(pool: ConnectionPool, store: VaultStore, clock: Clock) -> Counting:
    """Two budgets that every event counts against, one with a window for each user."""
    budgets = Budgets(pool, clock)
    for name, scope in (("tenant", {}), ("users", {"user": "*"})):
        terms = BudgetTerms(asset="USD", amount=10**15, window="month", scope=scope)
        budgets.put("acme", name, terms, changed_by="benchmark")
    assignments = BudgetAssignments(pool, budgets, makes_windows=True)
    ledger = Ledger(pool, clock, Uuid7Source(clock))
    return Counting(pool, store, assignments, ledger, clock, open_heads(pool, None).heads)


def measure_case(total: int, runs: int, is_spread: bool, has_budgets: bool = False) -> Measured:
    """The median of some runs, each from an empty vault."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name) / "data")
        server = EmbeddedPostgres(folder)
        server.start()
        migrate_postgres(server.url)
        pool = open_pool(server.url, connections_max=4)
        catalog = Catalog(pool)
        catalog.seed_if_empty(0)
        log = PostgresLog(pool)
        fill(log, total, clock.now(), is_spread)
        with pool.connection() as connection:
            row = connection.execute("SELECT pg_backend_pid()").fetchone()
        postmaster = psutil.Process(row[0] if row else 0).parent()
        assert postmaster is not None
        store, positions = VaultStore(pool), Positions(pool)
        found = []
        for _ in range(runs):
            store.wipe()
            source = PostgresSource([log, PostgresLog(pool, CORRECTIONS)], positions, "vault")
            memory = LogMemory([log], Path(name) / "memory")
            counting = counting_of(pool, store, clock) if has_budgets else None
            follower = VaultFollower(
                source, positions, store, catalog, clock, memory=memory, counting=counting
            )
            found.append(measure(follower, total, postmaster))
            assert store.dump() != b""
        pool.close()
        server.stop()
        folder.close()
    return Measured(*map(statistics.median, zip(*found, strict=True)))


if __name__ == "__main__":
    measure_all(*map(int, sys.argv[1:]))
