"""An archiver in a process of its own, to be killed: `python -m tests.archive.victim PG URL`."""

from __future__ import annotations

import sys

from tallystick.archive import Archive
from tallystick.clock import SystemClock
from tallystick.plumbing.log import CORRECTIONS, Positions, PostgresLog, PostgresSource
from tallystick.plumbing.objects import open_objects
from tallystick.plumbing.postgres import open_pool
from tallystick.workers.archiver import Archiver


def main(postgres_url: str, archive_url: str) -> None:
    pool = open_pool(postgres_url, connections_max=2)
    positions = Positions(pool)
    source = PostgresSource(
        [PostgresLog(pool), PostgresLog(pool, CORRECTIONS)], positions, "archiver"
    )
    archive = Archive(open_objects(archive_url))
    archiver = Archiver(source, positions, archive, SystemClock(), flush_rows=50, flush_seconds=0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        archiver.step()


if __name__ == "__main__":
    main(*sys.argv[1:])
