"""What the steps of the followers cost at a small steady load: CPU of one engine, by follower.

    python -m benchmarks.steps [events a second] [seconds] [events a run]

The followers of an engine in one process, one after the other, on real stores. A clock that is
moved by hand says whose step is due, so a busy machine makes as many steps as a quiet one, and
what is counted is their CPU (chDB's threads and merges included, PostgreSQL apart).
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import msgspec
import psutil

from benchmarks.serve import bodies
from tallystick.catalog import Catalog
from tallystick.clock import SECOND, FixedClock, SystemClock
from tallystick.events.appending import JudgingAppender
from tallystick.events.dedup import DedupIndex
from tallystick.events.door import Door
from tallystick.events.redaction import Redactor
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log import PostgresLog
from tallystick.plumbing.postgres import migrate_postgres
from tallystick.workers.loop import Follower
from tallystick.workers.options import EngineOptions
from tallystick.workers.roles import EVERY_SECONDS, enforcement, pipeline
from tallystick.workers.roles.parts import Parts

_PACE = {**EVERY_SECONDS, "rollups": EVERY_SECONDS["sink"], "sealer": 0.5, "overrun": 2.0}
"""How far apart the steps are that find something to do; the sink wakes the rollups."""

_TICK_SECONDS = 0.05


def run(rate: int, seconds: float, events_per_run: int) -> list[str]:
    """Return a table with a line for each follower."""
    gc.set_threshold(100_000, 50, 100)  # as the engine does
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name) / "data")
        postgres = EmbeddedPostgres(folder)
        postgres.start()
        migrate_postgres(postgres.url)
        store = ClickHouse(f"chdb://{Path(name) / 'clickhouse'}")
        migrate_clickhouse(store)
        clock = FixedClock(SystemClock().now())
        archive = str(Path(name) / "archive")
        url = f"chdb://{Path(name) / 'clickhouse'}"
        options = EngineOptions(postgres.url, url, "", data=name, archive_url=archive)
        parts = Parts(options, clock)
        Catalog(parts.pool).seed_if_empty(clock.now())
        requests = [
            request(f"s{number}", max(int(rate * _TICK_SECONDS), 1), events_per_run)
            for number in range(int(seconds / _TICK_SECONDS))
        ]
        lines = measure(parts, clock, requests)
        parts.close()
        store.close()
        postgres.stop()
        folder.close()
    return lines


def measure(parts: Parts, clock: FixedClock, requests: list[bytes]) -> list[str]:
    """Append what comes in a tick, then let everybody step whose time has come."""
    index = DedupIndex(Path(parts.options.data) / "index")
    door = Door(JudgingAppender(PostgresLog(parts.pool), index), Redactor(b"k" * 32), clock)
    door.start()
    followers = followers_of(parts)
    for follower in followers:
        follower.step()
    due = dict.fromkeys(_PACE, 0.0)
    used: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    stored = postgres_seconds()
    for number, body in enumerate(requests):
        accepted = door.accept(
            body, content_type="application/json", content_encoding="", headers={}
        )
        asyncio.run(accepted)
        at = number * _TICK_SECONDS
        clock.micros += int(_TICK_SECONDS * SECOND)
        for follower in followers:
            if at + _TICK_SECONDS / 2 < due[follower.name]:
                continue
            due[follower.name] = at + _PACE[follower.name]
            begun = time.process_time_ns()
            follower.step()
            used[follower.name] += time.process_time_ns() - begun
            steps[follower.name] += 1
    stored = postgres_seconds() - stored
    door.close()
    index.close()
    seconds = len(requests) * _TICK_SECONDS
    events = sum(body.count(b'"event_id"') for body in requests)
    whole = used.total() / 1e9
    return [
        "| follower | steps a second | CPU a step | of a core |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {steps[name] / seconds:.1f} | {used[name] / steps[name] / 1e6:.1f} ms "
            f"| {used[name] / seconds / 1e7:.1f}% |"
            for name in used
        ),
        f"| all, {events / seconds:,.0f} events/s | | {whole / events * 1e6:.0f} us an event "
        f"| {whole / seconds * 100:.1f}% |",
        f"| PostgreSQL, door included | | | {stored / seconds * 100:.1f}% |",
    ]


def followers_of(parts: Parts) -> list[Follower]:
    """Those of an engine that do something for every event."""
    return [
        pipeline.sink(parts),
        pipeline.rollups(parts),
        enforcement.vault(parts),
        pipeline.charger(parts),
        pipeline.archiver(parts),
        enforcement.seals(parts),
        enforcement.overrun(parts),
    ]


def postgres_seconds() -> float:
    """CPU of the server so far."""
    children = psutil.Process().children(recursive=True)
    return float(sum(sum(child.cpu_times()[:2]) for child in children))


def request(tag: str, size: int, events_per_run: int) -> bytes:
    """A request of whole runs: begun, tokens used, completed."""
    (body,) = bodies(tag, size, size)
    events = msgspec.json.decode(body)
    for number, event in enumerate(events):
        run, step = divmod(number, events_per_run)
        event |= {"run_id": f"{tag}-run-{run}", "event_type": "token_usage"}
        if step == 0:
            event["event_type"] = "run_started"
        elif step == events_per_run - 1:
            event["event_type"] = "run_completed"
        else:
            event |= {"provider": "openai", "model": "gpt-4o", "request_id": f"{tag}-{number}"}
            event |= {"tokens_input": 240, "tokens_output": 20, "tokens_cache_read": 0}
    return msgspec.json.encode(events)


def main(rate: str = "1500", seconds: str = "20", events_per_run: str = "3") -> None:
    """Print the table."""
    print("\n".join(run(int(rate), float(seconds), int(events_per_run))))


if __name__ == "__main__":
    main(*sys.argv[1:])
