"""What budgets cost: an authorization over credits and 6 budgets beside one over credits alone.

    make bench ARGS=budgets            about 1 minute

Method. A fresh embedded PostgreSQL with fsync on, 1,000 accounts in each of two tenants: one
without budgets, one with 2,000, of which 6 match every call (the whole tenant, its team,
feature, model, environment, and each user). One committer in this process, as in `serve`; the
two tenants take turns in each of RUNS runs; the figures are medians. `alone`: one call after
the other. `parallel`: 64 callers at once. An authorization is the hold; the capture is timed
apart. Matching is timed by itself.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg

from tallystick.clock import SystemClock
from tallystick.enforcement.authorization import Actual, Ask, Authorizer
from tallystick.enforcement.budgets import ActiveBudgets, Budgets, BudgetTerms
from tallystick.enforcement.budgets.enforcing import Enforcing
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.ledger.committer import LANES, Committer
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.postgres import BY_INDEX, make_async_pool, migrate_postgres, open_pool

RUNS, ALONE, CALLERS, CALLS_A_TURN, TURNS = 7, 150, 64, 5, 5
PLAIN, LIMITED = "plain", "limited"
_SEED = b"""
INSERT INTO ledger.account (account_id, tenant_id, created_at)
    SELECT t || '-' || i, t, 0 FROM generate_series(0, 999) i, unnest(ARRAY['plain', 'limited']) t;
INSERT INTO ledger.balance (account_id, credited, overage_limit_units, capture_policy,
    unknown_policy)
    SELECT account_id, 1000000000000, 0, 'cap', 'capture' FROM ledger.account;
INSERT INTO ledger.lot (lot_id, account_id, source, priority, created_at, granted)
    SELECT gen_random_uuid(), account_id, 'topup', 100, 0, 1000000000000 FROM ledger.account;
"""
_ATTRIBUTION = {
    "team": "search",
    "feature": "answers",
    "model": "gpt-4o",
    "environment": "production",
}


def set_budgets(budgets: Budgets) -> None:
    """Six that match, and many that do not."""
    matching: list[dict[str, str]] = [{}, {"user": "*"}]
    matching += [{name: value} for name, value in _ATTRIBUTION.items()]
    for number, scope in enumerate(matching):
        terms = BudgetTerms(asset="USD", amount=10**15, scope=scope, window="day")
        budgets.put(LIMITED, f"matching-{number}", terms, changed_by="bench")
    for number in range(1994):
        terms = BudgetTerms(asset="USD", amount=10**12, scope={"team": f"other-{number}"})
        budgets.put(LIMITED, f"other-{number}", terms, changed_by="bench")


Call = Callable[[str], Awaitable[None]]


class Bench:
    """Both tenants on one committer."""

    def __init__(self, authorizer: Authorizer) -> None:
        self.authorizer = authorizer
        self.serial = 0
        self.held: dict[str, list[str]] = {PLAIN: [], LIMITED: []}

    async def hold(self, tenant: str) -> None:
        self.serial += 1
        number = self.serial * 7919 % 1000
        outcome = await self.authorizer.hold(
            Ask(
                account_id=f"{tenant}-{number}",
                credit_units=10,
                tenant_id="",
                usd_units=1000,
                attribution={**_ATTRIBUTION, "user": f"user-{number % 20}"},
                idempotency_key=f"k{self.serial}",
            )
        )
        assert outcome.status == "posted", outcome
        self.held[tenant].append(outcome.hold_id)

    async def capture(self, tenant: str) -> None:
        hold_id = self.held[tenant].pop()
        actual = Actual(credit_units=5, usd_units=500)
        await self.authorizer.capture(hold_id, actual, idempotency_key="c", tenant_id="")

    async def alone(self, call: Call) -> dict[str, float]:
        """Microseconds a call, one after the other, the tenants in turns: the medians."""
        times: dict[str, list[float]] = {PLAIN: [], LIMITED: []}
        for _ in range(ALONE):
            for tenant, found in times.items():
                began = time.perf_counter()
                await call(tenant)
                found.append(time.perf_counter() - began)
        return {tenant: statistics.median(found) * 1e6 for tenant, found in times.items()}

    async def parallel(self, call: Call) -> dict[str, float]:
        """Microseconds a call with many callers, the tenants in turns: time by number of calls."""
        times: dict[str, list[float]] = {PLAIN: [], LIMITED: []}

        async def caller(tenant: str) -> None:
            for _ in range(CALLS_A_TURN):
                await call(tenant)

        for _ in range(TURNS):
            for tenant, found in times.items():
                began = time.perf_counter()
                await asyncio.gather(*(caller(tenant) for _ in range(CALLERS)))
                found.append((time.perf_counter() - began) / (CALLERS * CALLS_A_TURN))
        return {tenant: statistics.median(found) * 1e6 for tenant, found in times.items()}


async def measure(url: str, folder: Path) -> dict[str, Any]:
    clock = SystemClock()
    pool = open_pool(url, connections_max=4)
    budgets = Budgets(pool, clock)
    set_budgets(budgets)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"VACUUM ANALYZE")
        connection.execute(b"CHECKPOINT")
    lanes = make_async_pool(url, connections=LANES + 1, settings=BY_INDEX)
    committer = Committer(Ledger(pool, clock, Uuid7Source(clock)), lanes)
    await committer.open()
    bench = Bench(Authorizer(committer, Enforcing(budgets, clock)))
    await bench.parallel(bench.hold)  # windows are made, plans are cached
    await bench.parallel(bench.capture)
    ways = {
        "hold_alone": (bench.alone, bench.hold),
        "capture_alone": (bench.alone, bench.capture),
        "hold_parallel": (bench.parallel, bench.hold),
        "capture_parallel": (bench.parallel, bench.capture),
    }
    runs: dict[str, dict[str, list[float]]] = {name: {PLAIN: [], LIMITED: []} for name in ways}
    for _ in range(RUNS):
        for name, (way, call) in ways.items():
            for tenant, micros in (await way(call)).items():
                runs[name][tenant].append(micros)
    await committer.close()
    results: dict[str, Any] = {"matching_us": round(match_micros(budgets), 2)}
    for name, found in runs.items():
        plain, limited = statistics.median(found[PLAIN]), statistics.median(found[LIMITED])
        ratios = [b / a for a, b in zip(found[PLAIN], found[LIMITED], strict=True)]
        results[name] = {
            "credits_us": round(plain),
            "credits_and_6_budgets_us": round(limited),
            "ratio": round(statistics.median(ratios), 2),
            "ratio_from_to": [round(min(ratios), 2), round(max(ratios), 2)],
        }
    pool.close()
    return results


def match_micros(budgets: Budgets) -> float:
    """How long it takes to find 6 of 2,000 budgets."""
    active = ActiveBudgets()
    budgets.refresh(active)
    now, times = SystemClock().now(), []
    attribution = {**_ATTRIBUTION, "user": "user-1"}
    for _ in range(5000):
        began = time.perf_counter()
        found = active.match(LIMITED, attribution, now)
        times.append(time.perf_counter() - began)
    assert len(found) == 6
    return statistics.median(times) * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name) / "data")
        postgres = EmbeddedPostgres(folder)
        postgres.start()
        try:
            migrate_postgres(postgres.url)
            with psycopg.connect(postgres.url) as connection:
                connection.execute(_SEED)
            results = asyncio.run(measure(postgres.url, Path(name)))
        finally:
            postgres.stop()
            folder.close()
    text = json.dumps(results, indent=2)
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
