"""The engine: the process that owns the embedded ClickHouse and runs the followers.

Started by `serve` as a child. It reads what to do from its environment, prints one JSON
line {"port": n} when it is ready, and stops cleanly on SIGTERM.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.analytics.store import FactStore
from tallystick.backfill import Pieces
from tallystick.catalog import Catalog
from tallystick.clock import Clock, SystemClock
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.ledger.seals import Seals
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.clickhouse import ChdbEndpoint
from tallystick.plumbing.log import CORRECTIONS, Positions, PostgresLog, PostgresSource
from tallystick.plumbing.postgres import open_pool
from tallystick.reconcile.doubles import Doubles
from tallystick.workers.backfills import BackfillWorker
from tallystick.workers.charger import Charger
from tallystick.workers.holds import HoldKeeper
from tallystick.workers.loop import FollowerLoop
from tallystick.workers.options import EngineOptions
from tallystick.workers.pending import PendingRuns
from tallystick.workers.rollups import Rollups
from tallystick.workers.sealer import Sealer
from tallystick.workers.sink import Sink

_SINK_IDLE_SECONDS = 0.1
_ROLLUPS_IDLE_SECONDS = 0.1
_CHARGER_IDLE_SECONDS = 0.5
_HOLDS_IDLE_SECONDS = 0.5
_SEALER_IDLE_SECONDS = 0.5
_BACKFILLS_IDLE_SECONDS = 0.2


def main() -> int:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    options = msgspec.json.decode(os.environ["TALLYSTICK_ENGINE"], type=EngineOptions)
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    with running(options, SystemClock()) as port:
        sys.stdout.write(msgspec.json.encode({"port": port}).decode() + "\n")
        sys.stdout.flush()
        stop.wait()
    return 0


@contextmanager
def running(options: EngineOptions, clock: Clock) -> Iterator[int]:
    """Run the followers (and the endpoint of chDB); yield the endpoint's port or 0."""
    store = ClickHouse(options.clickhouse_url)
    migrate_clickhouse(store)
    pool = open_pool(options.postgres_url, connections_max=6)
    positions = Positions(pool)
    facts = FactStore(store)
    if options.has_wipe:
        wipe_derived(positions, facts)
    catalog = Catalog(pool)
    ledger = Ledger(pool, clock, Uuid7Source(clock))
    loops = [
        FollowerLoop(
            Sink(
                PostgresSource(
                    [PostgresLog(pool), PostgresLog(pool, CORRECTIONS)], positions, "sink"
                ),
                positions,
                facts,
                catalog,
                pool,
                clock,
            ),
            idle_seconds=_SINK_IDLE_SECONDS,
        ),
        FollowerLoop(
            Rollups(positions, FactStore(ClickHouse(options.clickhouse_url)), clock),
            idle_seconds=_ROLLUPS_IDLE_SECONDS,
        ),
        FollowerLoop(
            Charger(
                PendingRuns(pool),
                FactStore(ClickHouse(options.clickhouse_url)),
                catalog,
                ledger,
                clock,
            ),
            idle_seconds=_CHARGER_IDLE_SECONDS,
        ),
    ]
    loops.append(FollowerLoop(HoldKeeper(ledger, clock), idle_seconds=_HOLDS_IDLE_SECONDS))
    loops.append(FollowerLoop(Sealer(Seals(pool, clock)), idle_seconds=_SEALER_IDLE_SECONDS))
    loops.append(_backfills_loop(options, pool, catalog, clock))
    endpoint = _endpoint(options)
    try:
        for loop in loops:
            loop.start()
        yield endpoint.port if endpoint else 0
    finally:
        for loop in loops:
            loop.stop()
        if endpoint:
            endpoint.stop()
        pool.close()
        store.close()


def _backfills_loop(
    options: EngineOptions, pool: ConnectionPool, catalog: Catalog, clock: Clock
) -> FollowerLoop:
    store, log = ClickHouse(options.clickhouse_url), PostgresLog(pool)
    pieces = Pieces(pool, store, catalog, clock, lambda: {log.partition: log.head()})
    worker = BackfillWorker(pieces, Doubles(pool, store, clock), clock)
    return FollowerLoop(worker, idle_seconds=_BACKFILLS_IDLE_SECONDS)


def wipe_derived(positions: Positions, facts: FactStore) -> None:
    """Delete facts and everything made of them, and send the followers to the beginning."""
    for follower in ("rollups", "sink"):
        positions.forget(follower)
    facts.wipe()


def _endpoint(options: EngineOptions) -> ChdbEndpoint | None:
    if not options.clickhouse_url.startswith("chdb://"):
        return None
    folder = Path(options.clickhouse_url.removeprefix("chdb://"))
    endpoint = ChdbEndpoint(folder, key=options.endpoint_key, port=options.endpoint_port)
    endpoint.start()
    return endpoint


if __name__ == "__main__":
    raise SystemExit(main())
