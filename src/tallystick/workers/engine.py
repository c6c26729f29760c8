"""The engine: the process that owns the embedded ClickHouse and runs the followers.

Started by `serve` as a child. It reads what to do from its environment, prints one JSON
line {"port": n} when it is ready, or {"refused": why}, an empty line every two seconds as a sign
of life, and stops cleanly on SIGTERM.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tallystick.analytics.store import FactStore
from tallystick.clock import Clock, SystemClock
from tallystick.errors import InvariantBroken
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.child import take_stop_signals
from tallystick.plumbing.embedded.clickhouse import ChdbEndpoint, die_of_crashes
from tallystick.plumbing.embedded.heartbeat import Heartbeat
from tallystick.plumbing.log import Positions
from tallystick.workers.options import EngineOptions
from tallystick.workers.roles import Roles

_COLLECT_AFTER = (100_000, 50, 100)
"""Objects between collections. Columns of the log are lists without cycles: with the default of
700 the collector looks through them again and again, and finds nothing."""

_NICENESS = 5
"""Followers can wait, callers cannot: when cores are short, whoever answers requests goes first."""


def main() -> int:
    """Run until SIGTERM."""
    os.nice(_NICENESS)
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    options = msgspec.json.decode(os.environ["TALLYSTICK_ENGINE"], type=EngineOptions)
    wait_for_stop = take_stop_signals()
    heartbeat = Heartbeat(sys.stdout.fileno())
    heartbeat.start()
    try:
        with running(options, SystemClock()) as endpoint:
            die_of_crashes()
            if endpoint is not None:
                heartbeat.depend_on(endpoint.ask)
            _tell(port=endpoint.port if endpoint else 0)
            wait_for_stop()
    except InvariantBroken as refused:
        _tell(refused=refused.message)
        return 1
    return 0


def _tell(**answer: int | str) -> None:
    """One line for the parent, who waits for the first."""
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    sys.stdout.flush()


@contextmanager
def running(options: EngineOptions, clock: Clock) -> Iterator[ChdbEndpoint | None]:
    """Run the followers, and the endpoint of chDB where it is ours; yield that."""
    store = ClickHouse(options.clickhouse_url)
    migrate_clickhouse(store)
    roles = Roles(options, clock)
    roles.require_archive_within()
    if options.has_wipe:
        wipe_derived(roles.positions, FactStore(store))
    roles.require_facts_within()
    loops = [
        *roles.sink(),
        *roles.vault(),
        *roles.charger(),
        *roles.archiver(),
        *roles.keeper(),
    ]
    endpoint = _endpoint(options)
    try:
        for loop in loops:
            loop.start()
        yield endpoint
    finally:
        for loop in loops:
            loop.stop()
        roles.close()
        if endpoint:
            endpoint.stop()
        store.close()


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
