"""What a step of the followers costs, whatever it takes in: CPU a second at a small steady load.

    python -m benchmarks.steps [events a second] [seconds] [events a run]

The followers of one engine, in one process and one after the other, on real stores. A clock that is
moved by hand says when each step is due, so what is counted does not depend on how busy the
machine is: as many steps as a quiet one would make, and their CPU (chDB's threads included).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil

from benchmarks.run import bodies
from tallystick.catalog import Catalog
from tallystick.clock import SECOND, SystemClock
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
from tallystick.workers.roles import enforcement, pipeline
from tallystick.workers.roles.parts import Parts

_EVERY_SECONDS = {
    "sink": 0.5,
    "rollups": 0.5,
    "vault": 0.5,
    "charger": 2.0,
    "archiver": 1.0,
    "sealer": 0.5,
    "overrun": 2.0,
    "merges": 1.0,
}
"""How far apart the steps of each are that find something to do."""

_TICK_SECONDS = 0.05


class HandClock(SystemClock):
    """The time that it was moved to."""

    def __init__(self) -> None:
        self.at = super().now()

    def now(self) -> int:
        return self.at


def run(rate: int, seconds: float, events_per_run: int) -> list[str]:
    """Return a line of a table for each follower."""
    with tempfile.TemporaryDirectory() as name:
        folder = DataFolder(Path(name) / "data")
        postgres = EmbeddedPostgres(folder)
        postgres.start()
        migrate_postgres(postgres.url)
        clock = HandClock()
        url = f"chdb://{Path(name) / 'clickhouse'}"
        options = EngineOptions(
            postgres.url, url, "", data=name, archive_url=str(Path(name) / "archive")
        )
        store = ClickHouse(url)
        migrate_clickhouse(store)
        parts = Parts(options, clock)
        lines = measure(parts, store, clock, rate, seconds, events_per_run)
        parts.close()
        store.close()
        postgres.stop()
        folder.close()
    return lines


def measure(
    parts: Parts, store: ClickHouse, clock: HandClock, rate: int, seconds: float, run_size: int
) -> list[str]:
    """Append what comes in a tick, then let everybody step whose time has come."""
    Catalog(parts.pool).seed_if_empty(clock.now())
    index = DedupIndex(Path(parts.options.data) / "index")
    door = Door(JudgingAppender(PostgresLog(parts.pool), index), Redactor(b"k" * 32), clock)
    door.start()
    followers: list[Follower] = [
        *(pipeline.sink(parts), pipeline.rollups(parts), enforcement.vault(parts)),
        *(pipeline.charger(parts), pipeline.archiver(parts)),
        *(enforcement.seals(parts), enforcement.overrun(parts)),
    ]
    batch = max(int(rate * _TICK_SECONDS), 1)
    requests = [requests_of(f"s{number}", batch, run_size) for number in range(int(seconds / _TICK_SECONDS))]
    due = dict.fromkeys(_EVERY_SECONDS, 0.0)
    used: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    spans: dict[str, float] = {}
    before, server_before = profile(store), server_seconds()
    for follower in followers:
        follower.step()
    counted: dict[str, Counter[str]] = {follower.name: Counter() for follower in followers}
    for number, body in enumerate(requests):
        at = number * _TICK_SECONDS
        asyncio.run(door.accept(body, content_type="application/json", content_encoding="", headers={}))
        clock.at += int(_TICK_SECONDS * SECOND)
        for follower in followers:
            if at >= due[follower.name] - 1e-9:
                due[follower.name] = at + _EVERY_SECONDS[follower.name]
                begun = profile(store)
                spent, wall = timed(follower.step)
                counted[follower.name].update(
                    {key: value - begun.get(key, 0) for key, value in profile(store).items()}
                )
                used[follower.name] += spent
                steps[follower.name] += 1
                spans[follower.name] = spans.get(follower.name, 0.0) + wall
        if at >= due["merges"]:
            due["merges"] = at + _EVERY_SECONDS["merges"]
            used["merges"] += timed(lambda: time.sleep(0.05))[0]
            steps["merges"] += 1
    total = len(requests) * batch
    after = profile(store)
    lines = []
    for name in used:
        more = counted.get(name, Counter())
        lines.append(
            f"| {name} | {steps[name] / seconds:.1f} | {used[name] / steps[name] * 1e3:.2f} | "
            f"{used[name] / seconds * 100:.2f}% | {spans.get(name, 0) / steps[name] * 1e3:.1f} | "
            + ", ".join(f"{key} {more[key] / steps[name]:.1f}" for key in SHOWN if more[key])
        )
    whole = sum(used.values())
    lines.append(
        f"all {whole / seconds * 100:.1f}% of a core, {whole / total * 1e6:.1f} us an event; "
        f"postgres {(server_seconds() - server_before) / total * 1e6:.1f} us (door included); "
        f"merges {after.get('Merge', 0) - before.get('Merge', 0)}"
    )
    sql = ("SELECT table, count() AS n, sum(rows) AS rows, groupUniqArray(toString(part_type)) AS t, "
        "sum(bytes_on_disk) AS b FROM system.parts WHERE active GROUP BY table ORDER BY table")
    lines += [str(row) for row in store.query_rows(sql)]
    door.close()
    index.close()
    return lines


SHOWN = ("InsertQuery", "SelectQuery", "FileSync", "DirectorySync", "FileOpen", "SelectedParts", "SelectedMarks", "Merge")


def profile(store: ClickHouse) -> dict[str, int]:
    return {row["event"]: int(row["value"]) for row in store.query_rows("SELECT event, value FROM system.events")}


def server_seconds() -> float:
    found = 0.0
    for child in psutil.Process().children(recursive=True):
        found += sum(child.cpu_times()[:2])
    return found


def timed(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def requests_of(tag: str, size: int, run_size: int) -> bytes:
    """A request of whole runs of so many events."""
    (body,) = bodies(tag, size, size)
    if run_size == 25:
        return body
    events = msgspec.json.decode(body)
    for number, event in enumerate(events):
        run, step = divmod(number, run_size)
        event["run_id"] = f"{tag}-run-{run}"
        event["tenant_id"] = "bench"
        event["event_type"] = "run_started" if step == 0 else "token_usage" if step < run_size - 1 else "run_completed"
        if event["event_type"] == "token_usage":
            event |= {"provider": "openai", "model": "gpt-4o", "request_id": f"req-{tag}-{number}"}
            event |= {"tokens_input": 240, "tokens_output": 20}
    return msgspec.json.encode(events)


def main(rate: str = "1500", seconds: str = "20", events_per_run: str = "3") -> None:
    for line in run(int(rate), float(seconds), int(events_per_run)):
        print(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
