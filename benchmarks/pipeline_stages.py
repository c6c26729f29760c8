"""What each stage of the pipeline costs: CPU an event, one stage after the other, one process."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.world import World

from benchmarks.serve import bodies
from tallystick.clock import SystemClock
from tallystick.events.adapters import parse_body
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.postgres import migrate_postgres
from tallystick.workers import charger as charger_module

_AT_ONCE = 8


def measure(total: int) -> list[str]:
    """Run `total` events through every stage; return a line of a table for each."""
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name) / "data")
        postgres = EmbeddedPostgres(folder)
        postgres.start()
        migrate_postgres(postgres.url)
        store = ClickHouse(f"chdb://{Path(name) / 'clickhouse'}")
        migrate_clickhouse(store)
        world = World(postgres.url, store, Path(name), SystemClock())
        charger_module.QUIET_SECONDS = -1
        requests = bodies("s", total, 500)
        lines = [
            _timed("door: read, check, redact", total, lambda: _parse(world, requests)),
            _timed(
                "door: the same, deduplicate, append durably",
                total,
                lambda: asyncio.run(_send(world, requests)),
            ),
            _timed("sink: price, append facts", total, lambda: _run(world.sink.step)),
            _timed(
                "rollups: minute, hour, day, user, run", total, lambda: _run(world.rollups.step)
            ),
            _timed("charger: ledger and charge lines", total, lambda: _run(world.charger.step)),
        ]
        world.close()
        store.close()
        postgres.stop()
        folder.close()
    return lines


def _timed(name: str, total: int, work: Callable[[], None]) -> str:
    cpu, began = time.process_time(), time.perf_counter()
    work()
    used, took = time.process_time() - cpu, time.perf_counter() - began
    return f"| {name} | {used / total * 1e6:.1f} | {took / total * 1e6:.1f} |"


def _parse(world: World, requests: list[bytes]) -> None:
    for body in requests:
        parse_body(
            body,
            content_type="application/json",
            content_encoding="",
            headers={},
            received_at=world.clock.now(),
            redactor=world.door.redactor,
        )


async def _send(world: World, requests: list[bytes]) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(body: bytes) -> None:
        async with slots:
            await world.door.accept(
                body, content_type="application/json", content_encoding="", headers={}
            )

    await asyncio.gather(*map(one, requests))


def _run(step: Callable[[], int]) -> None:
    while step():
        pass
