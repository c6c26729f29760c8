"""The ledger's speed: holds in process, over HTTP, in batches, on one account, on lease.

    make bench ARGS=ledger               all of it, about 8 minutes
    python -m benchmarks.ledger http     one part

Method. A fresh embedded PostgreSQL with fsync on, 100,000 accounts of one lot each, analyzed
and checkpointed. Load runs on the same two cores. HTTP latency is open loop (benchmarks/load.py):
a request's time runs from when it was due. Each figure is the median of RUNS runs in one
session; the designs that are compared take turns in it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import psutil
import psycopg
from psycopg_pool import ConnectionPool
from tests.integration.test_leases import DirectLeases
from tests.server import Server

from tallystick.clock import SystemClock
from tallystick.ids import Uuid7Source
from tallystick.ledger import HoldRequest, Ledger
from tallystick.ledger.intake import prepare
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.postgres import BY_INDEX, migrate_postgres, open_pool
from tallystick.sdk import LeasedCredit

ACCOUNTS = 100_000
RUNS = 3
HTTP_SECONDS = 10
_SEED = b"""
INSERT INTO ledger.account (account_id, tenant_id, created_at)
    SELECT 'acct-' || i, 'bench', 0 FROM generate_series(1, 100000) i;
INSERT INTO ledger.balance (account_id, credited, overage_limit_units, capture_policy,
        unknown_policy)
    SELECT 'acct-' || i, 1000000000000, 0, 'cap', 'capture' FROM generate_series(1, 100000) i;
INSERT INTO ledger.lot (lot_id, account_id, source, priority, created_at, granted)
    SELECT gen_random_uuid(), 'acct-' || i, 'topup', 100, 0, 1000000000000
    FROM generate_series(1, 100000) i;
"""
_NAIVE = b"""
CREATE TABLE IF NOT EXISTS public.naive (account_id text PRIMARY KEY, balance bigint, held bigint);
CREATE TABLE IF NOT EXISTS public.naive_hold (hold_id bigint GENERATED ALWAYS AS IDENTITY
    PRIMARY KEY, account_id text, units bigint, idempotency_key text UNIQUE);
INSERT INTO public.naive SELECT 'acct-' || i, 1000000000000, 0 FROM generate_series(1, 100000) i
    ON CONFLICT DO NOTHING;
"""
_HISTORY = b"""
INSERT INTO ledger.operation (account_id, sequence, operation_id, tenant_id, kind, units,
    available, balance_after, posted_at, outcome, code, decided_by, source, target, moved,
    shortfall, held, leased, overage, overage_held, lot_ids, lot_consumed, lot_held, limit_ids,
    limit_used, limit_held, hold_id, epoch, due_at, run_id, refers_to, reason, details, key_hash,
    digest)
SELECT 'acct-' || (1 + i %% 100000), 1000000 + i, gen_random_uuid(), 'bench', 'start', 0, 0, 0, 0,
    'posted', '', '', '', '', 0, 0, 0, 0, 0, 0, '{}', '{}', '{}', '{}', '{}', '{}', NULL, 0,
    NULL, '', NULL, '', '', gen_random_uuid(), gen_random_uuid()
FROM generate_series(%s::bigint, %s::bigint) i
"""


class Store:
    """An embedded PostgreSQL with the seeded accounts."""

    def __init__(self, folder: Path) -> None:
        self.folder = DataFolder(folder)
        self.postgres = EmbeddedPostgres(self.folder)
        self.postgres.start()
        self.url = self.postgres.url
        migrate_postgres(self.url)
        seed(self.url)
        self.pool = open_pool(self.url, connections_max=6, settings=BY_INDEX)
        clock = SystemClock()
        self.ledger = Ledger(self.pool, clock, Uuid7Source(clock))

    def close(self) -> None:
        self.pool.close()
        self.postgres.stop()
        self.folder.close()


@contextmanager
def store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        made = Store(Path(folder) / "data")
        try:
            yield made
        finally:
            made.close()


def seed(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(_SEED)
    settle(url)


def settle(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(b"VACUUM ANALYZE")
        connection.execute(b"CHECKPOINT")


def medians(runs: list[float]) -> str:
    return f"{statistics.median(runs):,.0f} ({min(runs):,.0f} to {max(runs):,.0f})"


def holds(tag: str, count: int, *, account: Callable[[int], int]) -> list[HoldRequest]:
    return [
        HoldRequest(f"acct-{account(number)}", 1000, idempotency_key=f"{tag}-{number}")
        for number in range(count)
    ]


def drive(ledger: Ledger, requests: list[HoldRequest], threads: int, group: int) -> float:
    """Holds a second; each thread has accounts of its own, as the committer's lanes do."""
    shares: list[list[HoldRequest]] = [[] for _ in range(threads)]
    for request in requests:
        shares[int(request.account_id[5:]) % threads].append(request)

    def work(share: list[HoldRequest]) -> None:
        for start in range(0, len(share), group):
            ledger.apply_group([prepare(one) for one in share[start : start + group]])

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, shares))
    return len(requests) / (time.perf_counter() - started)


def in_process() -> list[str]:
    lines = []
    with store() as made:
        choose = Random(1)

        def spread(number: int) -> int:
            return choose.randint(1, ACCOUNTS)

        drive(made.ledger, holds("warm", 20_000, account=spread), 2, 200)
        for threads, group in ((1, 1), (1, 50), (2, 50), (2, 250), (2, 1000)):
            rates = [
                drive(
                    made.ledger,
                    holds(f"p{threads}-{group}-{run}", 2_000 if group == 1 else 30_000,
                          account=spread),
                    threads,
                    group,
                )
                for run in range(RUNS)
            ]  # fmt: skip
            lines.append(
                f"| in process, {threads} thread(s), groups of {group} | {medians(rates)} holds/s |"
            )
        rates = [
            drive(made.ledger, holds(f"hot{run}", 30_000, account=lambda n: 7), 1, 250)
            for run in range(RUNS)
        ]
        lines.append(f"| in process, one account, groups of 250 | {medians(rates)} holds/s |")
        lines.append(balance_read(made.ledger))
    return lines


def balance_read(ledger: Ledger) -> str:
    times = []
    for number in range(2000):
        started = time.perf_counter()
        ledger.balance(f"acct-{number + 1}")
        times.append((time.perf_counter() - started) * 1000)
    times.sort()
    return f"| balance read in process | p50 {times[1000]:.2f} ms, p99 {times[1980]:.2f} ms |"


class Api:
    """A real server with the seeded accounts."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder).start()
        line = next(one.cmdline() for one in self.server.tree() if "-k" in one.cmdline())
        self.url = f"postgresql://tallystick@/tallystick?host={line[line.index('-k') + 1]}"
        seed(self.url)

    def load(self, kind: str, rate: int, connections: int, seconds: int = HTTP_SECONDS) -> Any:
        command = [sys.executable, "-m", "benchmarks.load", str(self.server.client.base_url.port)]
        key = self.server.client.headers["Authorization"].split()[1]
        tag = f"{kind}{rate}-{connections}-{time.perf_counter_ns()}"
        values = [key, str(rate), str(connections), str(seconds), kind, str(ACCOUNTS), tag]
        before, started = self.cpu(), time.perf_counter()
        found = json.loads(subprocess.run(command + values, capture_output=True, check=True).stdout)
        took, after = time.perf_counter() - started, self.cpu()
        found["cpu"] = {name: round(100 * (after[name] - before[name]) / took) for name in after}
        return found

    def cpu(self) -> dict[str, float]:
        used = {"api": 0.0, "postgres": 0.0, "engine": 0.0}
        for number, one in enumerate(self.server.tree()):
            try:
                line, times = " ".join(one.cmdline()), one.cpu_times()
            except psutil.Error:
                continue  # a worker of PostgreSQL that came and went
            part = "api" if number == 0 else "engine" if "workers.engine" in line else "postgres"
            used[part] += sum(times[:2])
        return used


@contextmanager
def api() -> Iterator[Api]:
    with tempfile.TemporaryDirectory() as folder:
        made = Api(Path(folder) / "data")
        try:
            yield made
        finally:
            made.server.stop()


def http() -> list[str]:
    lines = []
    with api() as made:
        made.load("hold", 2000, 32, 15)  # pages are written whole once after a checkpoint
        for kind, rate, connections in (
            ("hold", 1000, 64),
            ("hold", 3000, 64),
            ("hold", 5000, 128),
            ("hold", 0, 64),
            ("hold", 0, 256),
            ("hot", 0, 256),
        ):
            runs = [made.load(kind, rate, connections) for _ in range(RUNS)]
            middle = sorted(runs, key=lambda run: run["p99_ms"])[RUNS // 2]
            what = "one account" if kind == "hot" else f"{ACCOUNTS:,} accounts"
            shown = f"{rate:,}/s open loop" if rate else "closed loop"
            lines.append(
                f"| HTTP, {what}, {shown}, {connections} connections | "
                f"{middle['per_second']:,}/s, p50 {middle['p50_ms']} ms, "
                f"p99 {middle['p99_ms']} ms, p99.9 {middle['p999_ms']} ms; CPU of 200%: "
                f"{middle['cpu']} load {middle['cpu_percent']} |"
            )
            print(lines[-1], flush=True)
    return lines


def batch() -> list[str]:
    lines = []
    with api() as made:
        choose = Random(2)
        for what, accounts in (("spread", ACCOUNTS), ("one account", 1)):
            rates = []
            for run in range(RUNS):
                bodies = [
                    {
                        "items": [
                            {
                                "account_id": f"acct-{choose.randint(1, accounts)}",
                                "amount": "0.001",
                                "idempotency_key": f"b{what}{run}-{part}-{number}",
                            }
                            for number in range(2000)
                        ]
                    }
                    for part in range(15)
                ]
                started = time.perf_counter()
                with ThreadPoolExecutor(4) as pool:
                    list(pool.map(lambda body: post(made, body), bodies))
                rates.append(30_000 / (time.perf_counter() - started))
            lines.append(
                f"| POST /v1/holds:batch, 2,000 items each, {what} | {medians(rates)} items/s |"
            )
        lines += job(made)
    return lines


def post(made: Api, body: dict[str, Any]) -> list[dict[str, Any]]:
    answer = made.server.client.post("/v1/holds:batch", json=body, timeout=120)
    answer.raise_for_status()
    results: list[dict[str, Any]] = answer.json()["results"]
    assert all(one["status"] == "held" for one in results), results[:2]
    return results


def job(made: Api) -> list[str]:
    """50,000 rows on one account while others hold at 1,000/s."""
    seconds, quiet, during = [], [], []
    for run in range(RUNS):
        items = [
            {"account_id": "acct-11", "amount": "0.001", "idempotency_key": f"j{run}-{number}"}
            for number in range(50_000)
        ]
        quiet.append(made.load("hold", 1000, 32, 6)["p99_ms"])
        with ThreadPoolExecutor(1) as pool:
            others = pool.submit(made.load, "hold", 1000, 32, 8)
            time.sleep(1.0)
            started = time.perf_counter()
            post(made, {"items": items})
            seconds.append(time.perf_counter() - started)
            during.append(others.result()["p99_ms"])
    return [
        f"| a job of 50,000 rows on one account, one request | "
        f"{statistics.median(seconds):.1f} s; others at 1,000/s: p99 "
        f"{statistics.median(during):.1f} ms, without the job {statistics.median(quiet):.1f} ms |"
    ]


def lease() -> list[str]:
    with store() as made:
        credit = LeasedCredit(
            DirectLeases(made.ledger), "acct-3", block_units=10**9, has_thread=False
        )
        rounds = []
        for _ in range(RUNS):
            started = time.perf_counter()
            for _ in range(100_000):
                permit = credit.authorize(1000)
                if permit is None:
                    raise AssertionError("the block is spent")
                credit.settle(permit, 900)
            rounds.append((time.perf_counter() - started) * 10)
        credit.close()
    return [f"| lease, authorize and settle in memory | {statistics.median(rounds):.2f} us |"]


def _select_for_update(pool: ConnectionPool, account: str, key: str) -> None:
    with pool.connection() as connection:
        row = connection.execute(
            "SELECT balance, held FROM public.naive WHERE account_id = %s FOR UPDATE", (account,)
        ).fetchone()
        if row is None or row[0] - row[1] < 1000:
            return
        connection.execute(
            "UPDATE public.naive SET held = held + 1000 WHERE account_id = %s", (account,)
        )
        connection.execute(
            "INSERT INTO public.naive_hold (account_id, units, idempotency_key) "
            "VALUES (%s, 1000, %s)",
            (account, key),
        )


def _guarded_update(pool: ConnectionPool, account: str, key: str) -> None:
    with pool.connection() as connection:
        connection.execute(
            "WITH taken AS (UPDATE public.naive SET held = held + 1000 WHERE account_id = %s "
            "AND balance - held >= 1000 RETURNING account_id) "
            "INSERT INTO public.naive_hold (account_id, units, idempotency_key) "
            "SELECT account_id, 1000, %s FROM taken",
            (account, key),
        )


def naive() -> list[str]:
    """The designs that most systems have, by turns with ours, 32 callers each."""
    lines = []
    with store() as made:
        with psycopg.connect(made.url) as connection:
            connection.execute(_NAIVE)
        settle(made.url)
        pool = ConnectionPool(made.url, min_size=32, max_size=32, open=True)
        choose = Random(3)
        for what, accounts in (("100,000 accounts", ACCOUNTS), ("one account", 1)):

            def account(number: int, most: int = accounts) -> int:
                return choose.randint(1, most)

            found: dict[str, list[float]] = {"select": [], "guarded": [], "ours": []}
            for run in range(RUNS):
                for name, step in (("select", _select_for_update), ("guarded", _guarded_update)):
                    jobs = [(f"acct-{account(n)}", f"{what}{name}{run}-{n}") for n in range(4000)]
                    started = time.perf_counter()
                    with ThreadPoolExecutor(32) as threads:
                        list(threads.map(lambda one, step=step: step(pool, *one), jobs))
                    found[name].append(4000 / (time.perf_counter() - started))
                requests = holds(f"n{what}{run}", 20_000, account=account)
                lanes = 2 if what != "one account" else 1
                found["ours"].append(drive(made.ledger, requests, lanes, 32))
            ours = statistics.median(found["ours"])
            for name, title in (
                ("select", "a transaction with SELECT FOR UPDATE a request"),
                ("guarded", "a guarded UPDATE a request"),
            ):
                rate = statistics.median(found[name])
                lines.append(
                    f"| {title}, {what} | {rate:,.0f}/s; ours in groups of 32 {ours:,.0f}/s: "
                    f"{ours / rate:.1f} times |"
                )
        pool.close()
    return lines


def history() -> list[str]:
    """The same load on a short and on a long history."""
    lines = []
    with store() as made:
        choose = Random(4)
        size = 0
        for total in (10_000, 10_000_000):
            with psycopg.connect(made.url, autocommit=True) as connection:
                while size < total:
                    more = min(total - size, 500_000)
                    connection.execute(_HISTORY, (size + 1, size + more))
                    size += more
            settle(made.url)
            drive(
                made.ledger,
                holds(f"w{total}", 20_000, account=lambda n: choose.randint(1, ACCOUNTS)),
                2,
                250,
            )
            rates = [
                drive(
                    made.ledger,
                    holds(f"g{total}-{run}", 30_000,
                          account=lambda n: choose.randint(1, ACCOUNTS)),
                    2,
                    250,
                )
                for run in range(RUNS)
            ]  # fmt: skip
            lines.append(f"| history of {total:,} operations | {medians(rates)} holds/s |")
    return lines


PARTS: dict[str, Callable[[], list[str]]] = {
    "in_process": in_process,
    "http": http,
    "batch": batch,
    "lease": lease,
    "naive": naive,
    "history": history,
}


def main(names: list[str]) -> None:
    print(f"| what, medians of {RUNS} runs (least to most) | figure |\n| --- | --- |")
    for name in names or list(PARTS):
        print("\n".join(PARTS[name]()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
