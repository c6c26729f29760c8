"""A vault in a process of its own, without ClickHouse: `python -m tests.vault_victim PG DIR N`."""

from __future__ import annotations

import sys
from pathlib import Path

from tallystick.catalog import Catalog
from tallystick.clock import SystemClock
from tallystick.enforcement.vault import VaultStore
from tallystick.errors import Raced
from tallystick.plumbing.log import CORRECTIONS, Positions, PostgresLog, PostgresSource
from tallystick.plumbing.postgres import open_pool
from tallystick.workers.memory import LogMemory
from tallystick.workers.vault import VaultFollower


def main(postgres_url: str, folder: str, events_per_step: str) -> None:
    pool = open_pool(postgres_url, connections_max=2)
    log = PostgresLog(pool)
    source = PostgresSource([log, PostgresLog(pool, CORRECTIONS)], Positions(pool), "vault")
    follower = VaultFollower(
        source,
        Positions(pool),
        VaultStore(pool),
        Catalog(pool),
        SystemClock(),
        memory=LogMemory([log], Path(folder)),
        events_per_step=int(events_per_step),
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        try:
            follower.step()
        except Raced:  # another one was faster
            follower.recover()


if __name__ == "__main__":
    main(*sys.argv[1:])
