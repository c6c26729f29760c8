"""The archive's speed: log to objects, objects to facts; bytes an event; who uses the CPU.

    make bench ARGS=archive

One process does the work alone, on real stores (embedded PostgreSQL, chDB with fsync, a folder).
The log is filled first and is not counted. Events are made so that they compress no better than
real ones: token counts, latencies and ids do not repeat. Each restore wipes the facts first and
must give the same digest over every column of every fact as the sink's own work on the log.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil

from tallystick.analytics.store import FactStore
from tallystick.archive import Archive, ArchiveSource, verify_archive
from tallystick.catalog import Catalog
from tallystick.clock import SystemClock
from tallystick.events.batch import batch_of
from tallystick.events.model import Event
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log import CORRECTIONS, Positions, PostgresLog, PostgresSource
from tallystick.plumbing.objects import open_objects
from tallystick.plumbing.postgres import migrate_postgres, open_pool
from tallystick.workers.archiver import Archiver
from tallystick.workers.engine import wipe_derived
from tallystick.workers.restore import Restorer
from tallystick.workers.sink import Sink

EVENTS = 1_000_000
BATCH = 5_000
RUNS = 3
EVENTS_PER_RUN = 25


class Timed(NamedTuple):
    """Events a second, and CPU of this process and of PostgreSQL as shares of one core."""

    rate: float
    own: float
    postgres: float


def make_event(number: int, now: int, rng: random.Random) -> Event:
    """One of a run of 25: starts, ends, every third a tool call, else a model call."""
    run, step = divmod(number, EVENTS_PER_RUN)
    event = Event(
        event_id=f"{rng.getrandbits(64):016x}",
        event_type="token_usage",
        occurred_at=now + number * 20,
        received_at=now + number * 20 + rng.randrange(200_000),
        tenant_id=f"tenant-{run % 7}",
        run_id=f"run-{run}",
        source="gateway",
        workflow="support",
        agent="helper",
        user_id=f"user-{run % 997}",
        team=f"team-{run % 5}",
        product="assistant",
        feature=f"feature-{run % 11}",
        customer_tier="pro",
        environment="production",
        content_digest=rng.randbytes(16),
    )
    if step in (0, EVENTS_PER_RUN - 1):
        event.event_type = "run_completed" if step else "run_started"
    elif step % 3 == 0:
        event.event_type = "tool_call_finished"
        event.tool, event.tool_call_id = f"tool-{step}", f"{rng.getrandbits(64):016x}"
        event.latency_ms = float(rng.randrange(5_000))
    else:
        event.provider, event.model = "openai", ("gpt-4o", "gpt-4o-mini", "gpt-4.1")[run % 3]
        event.request_id, event.latency_ms = f"{rng.getrandbits(64):016x}", rng.random() * 9000
        event.tokens_input, event.tokens_output = rng.randrange(1024, 9000), rng.randrange(900)
        event.tokens_cache_read = rng.choice((0, 1024))
    return event


class Bench:
    """Stores on a folder that is thrown away."""

    def __init__(self, folder: Path) -> None:
        self._folder = DataFolder(folder / "data")
        self._postgres = EmbeddedPostgres(self._folder)
        self._postgres.start()
        migrate_postgres(self._postgres.url)
        self.pool = open_pool(self._postgres.url, connections_max=4)
        self.clock = SystemClock()
        self.catalog = Catalog(self.pool)
        self.catalog.seed_if_empty(self.clock.now())
        self.log = PostgresLog(self.pool)
        self.positions = Positions(self.pool)
        store = ClickHouse(f"chdb://{folder / 'clickhouse'}")
        migrate_clickhouse(store)
        self.facts = FactStore(store)
        self.archive = Archive(open_objects(str(folder / "archive")))

    def fill(self) -> None:
        rng, now = random.Random(1), self.clock.now()
        for start in range(0, EVENTS, BATCH):
            events = [make_event(number, now, rng) for number in range(start, start + BATCH)]
            self.log.append(BATCH, batch_of(events).columns, now, lambda _: bytes(BATCH))

    def source(self, follower: str) -> PostgresSource:
        logs = [self.log, PostgresLog(self.pool, CORRECTIONS)]
        return PostgresSource(logs, self.positions, follower)

    def write_archive(self) -> None:
        source = self.source("archiver")
        archiver = Archiver(source, self.positions, self.archive, self.clock)
        while archiver.step():
            pass
        archiver.flush()

    def sink(self) -> None:
        source = self.source("sink")
        sink = Sink(source, self.positions, self.facts, self.catalog, self.pool, self.clock)
        while sink.step():
            pass

    def restore(self) -> None:
        source = ArchiveSource(self.archive, self.positions, "sink")
        restorer = Restorer(source, self.positions, self.facts, self.catalog, self.pool, self.clock)
        while restorer.step():
            pass
        restorer.close()

    def timed(self, work: Callable[[], None]) -> Timed:
        before, started = self._cpu(), time.perf_counter()
        work()
        took, after = time.perf_counter() - started, self._cpu()
        own, postgres = (
            100 * (end - start) / took for start, end in zip(before, after, strict=True)
        )
        return Timed(EVENTS / took, own, postgres)

    def _cpu(self) -> tuple[float, float]:
        here = psutil.Process()
        children = [one.cpu_times() for one in here.children(recursive=True)]
        times = here.cpu_times()
        return times.user + times.system, sum(one.user + one.system for one in children)

    def close(self) -> None:
        self.pool.close()
        self._postgres.stop()
        self._folder.close()


def line(what: str, found: list[Timed], more: str = "") -> str:
    rates = [one.rate for one in found]
    own, postgres = (
        statistics.median(getattr(one, name) for one in found) for name in ("own", "postgres")
    )
    return (
        f"| {what}, {EVENTS:,} events | {statistics.median(rates):,.0f} events/s (median of "
        f"{len(rates)}, {min(rates):,.0f} to {max(rates):,.0f}) | CPU of 200%: worker {own:.0f}%, "
        f"postgres {postgres:.0f}%{more} |"
    )


def archive() -> str:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            bench.fill()
            written = bench.timed(bench.write_archive)
            checked = bench.timed(lambda: require_whole(bench.archive))
            sunk = bench.timed(bench.sink)
            digest = bench.facts.query_digest()
            restored = []
            for _ in range(RUNS):
                wipe_derived(bench.positions, bench.facts)
                restored.append(bench.timed(bench.restore))
                if bench.facts.query_digest() != digest:
                    raise AssertionError("the restored facts differ")
            found = verify_archive(bench.archive, has_content=False).partitions[0]
        finally:
            bench.close()
    each = f"; {found.byte_count / found.rows:.1f} bytes an event in {found.objects} objects"
    lines = [
        line("log to archive", [written], each),
        line("archive verify", [checked]),
        line("archive to facts (bit-equal to the sink's)", restored),
        line("log to facts by the sink, for comparison", [sunk]),
    ]
    return "\n".join(lines)


def require_whole(archive: Archive) -> None:
    if verify_archive(archive).violations:
        raise AssertionError("the archive is not whole")


if __name__ == "__main__":
    print(archive(), flush=True)
