"""The event pipeline under load: sustained ingest, Kafka to facts, stats on many facts.

    python -m benchmarks.pipeline                all of it
    python -m benchmarks.pipeline stages         CPU an event of each stage
    python -m benchmarks.pipeline sustained      5,000/s for a minute, 50,000/s for two
    python -m benchmarks.pipeline kafka [1500000]
                                                 a topic of events into facts, 1 and 2 sinks
    python -m benchmarks.pipeline stats 100      /v1/stats on 100 million facts [FOLDER]

Method. Sustained: a load process of its own sends requests of 500 events, open loop: each
leaves when it is due, whether or not earlier ones were answered. 1% of events are sent twice,
5% are out of order (ten minutes old), 0.1% are malformed. An event's delay runs from when its
request was due to when `/v1/stats` (asked four times a second) shows it. Server, stores and
load share two cores. Memory is of all processes; PSS counts a page that they share once.
Kafka: one broker; events are in the topic before the clock starts.
Stats: facts are generated in ClickHouse, folded by the product's own rollups, and asked for
over HTTP by the routes' own code. They are kept (FOLDER, `.bench/stats`): making 100 million
takes an hour, and what is there is not made again.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.server import Server

from benchmarks.pipeline_load import BEFORE, NOW, TAG, send
from benchmarks.serve import bodies, cpu_seconds, memory, visible

BATCH = 500
KAFKA_RUNS = ((4, 1, "door"), (12, 1, "door"), (12, 2, "door"), (12, 1, "others"))
"""Partitions, sink processes, and who made the messages: our doors, or others as JSON."""

KAFKA_PARTS = ("sinks", "ClickHouse", "PostgreSQL", "broker")


def template() -> bytes:
    """A request of 500 events with places for its tag and for two times; 1% stand twice."""
    (body,) = bodies(TAG.decode(), BATCH, BATCH)
    events = body.removeprefix(b"[").removesuffix(b"]").split(b"},{")
    pieces: list[bytes] = []
    for number, event in enumerate(events):
        at = event.index(b'"event_time":"') + len(b'"event_time":"')
        moment = BEFORE if number % 20 == 7 else NOW
        piece = event[:at] + moment + event[at + len(moment) :]
        pieces.append(pieces[-1] if number % 100 == 50 else piece)
    return b"[" + b"},{".join(pieces) + b"]"


def sustained(rate: int, seconds: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data").start()
        key = (server.folder / "admin.key").read_text().strip()
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        port, every = server.client.base_url.port, BATCH / rate
        load = multiprocessing.get_context("spawn").Process(
            target=send,
            args=(port, key, template(), every, int(seconds / every), theirs),
        )
        before, began = cpu_seconds(server), time.perf_counter()
        load.start()
        seen: list[tuple[float, int]] = []
        peak = (0.0, 0.0)
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                seen.append((time.monotonic(), visible(server)))
                time.sleep(0.25)

        watcher = threading.Thread(target=watch)
        watcher.start()
        while not ours.poll(1):
            peak = max(peak, memory(server)[::-1])
        due, acknowledged, load_cpu = ours.recv()
        load.join()
        total = per_request(len(due))
        while seen[-1][1] < total and time.monotonic() < due[-1] + 120:
            time.sleep(0.1)
        took = time.perf_counter() - began
        done.set()
        watcher.join()
        after = cpu_seconds(server)
        peak = max(peak, memory(server)[::-1])
        report = server.get("/v1/freshness")
        server.stop()
    delays = []
    place = 0
    for number, moment in enumerate(due):
        while place < len(seen) and seen[place][1] < per_request(number + 1):
            place += 1
        delays.append((seen[place][0] if place < len(seen) else time.monotonic()) - moment)
    answers = sorted(done_at - moment for moment, done_at in zip(due, acknowledged, strict=True))
    achieved = per_request(len(due)) / (max(acknowledged) - due[0])
    parts = {name: (after[name] - before[name]) / took for name in after if name != "load"}
    parts["load"] = load_cpu / took
    split = ", ".join(f"{name} {100 * share:.0f}%" for name, share in parts.items())
    return (
        f"| {rate:,} events/s offered for {seconds} s | {achieved:,.0f}/s acknowledged | "
        f"{quantiles(delays)} | {quantiles(answers)} | {split} | "
        f"{peak[0]:,.0f} MB ({peak[1]:,.0f}) | "
        f"{report['duplicates']:,} duplicates, difference {report['difference']} |"
    )


def per_request(requests: int) -> int:
    """Events that count after so many requests: 1% are repeats, all broken ones are one fact."""
    return requests * (BATCH - BATCH // 100) + (1 if requests > 1 else 0)


def quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    picked = (
        ordered[min(int(len(ordered) * share), len(ordered) - 1)] for share in (0.5, 0.95, 0.99)
    )
    return " / ".join(f"{value * 1000:,.0f}" for value in picked) + " ms"


def run_sustained() -> list[str]:
    head = [
        "## Sustained ingest over HTTP, embedded",
        "",
        "| load | reached | event to /v1/stats, p50 / p95 / p99 | answer, p50 / p95 / p99 | "
        "CPU of 200% | peak PSS (RSS) | at the end |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines = []
    for rate, seconds in ((5_000, 60), (30_000, 60), (50_000, 120)):
        lines.append(sustained(rate, seconds))
    return [*head, *lines, ""]


def run_stages(total: int = 300_000) -> list[str]:
    from benchmarks.pipeline_stages import measure

    head = [
        "## What each stage costs",
        "",
        f"{total:,} events of 25 a run, requests of 500, one process; PostgreSQL's CPU is apart.",
        "",
        "| stage | microseconds of CPU an event | of wall time |",
        "| --- | --- | --- |",
    ]
    return [*head, *measure(total), ""]


def run_kafka(events: str = "1500000") -> list[str]:
    from benchmarks.pipeline_kafka import kafka_to_facts

    head = [
        "## Kafka to facts",
        "",
        f"{int(events):,} events in the topic before the sinks start; broker, PostgreSQL, chDB and "
        "sinks share the cores, so events/s are those of the whole machine. A core of its own does "
        "1 / CPU of the sink; ClickHouse's CPU includes the rollups.",
        "",
        "| made by | partitions | sink processes | events/s | µs of CPU an event: sinks | "
        "ClickHouse | PostgreSQL | broker | a core of sink | RSS a sink |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines = []
    for partitions, sinks, made_by in KAFKA_RUNS:
        one = kafka_to_facts(int(events), partitions, sinks, made_by)
        micros = {part: used / one.events * 1e6 for part, used in one.cpu_seconds.items()}
        lines.append(
            f"| {made_by} | {partitions} | {sinks} | {one.per_second:,.0f} | "
            + " | ".join(f"{micros[part]:.1f}" for part in KAFKA_PARTS)
            + f" | {1e6 / micros['sinks']:,.0f} events/s | {one.sink_megabytes:,.0f} MB |"
        )
    return [*head, *lines, ""]


def run_stats(millions: str = "100", folder: str = ".bench/stats") -> list[str]:
    from benchmarks.pipeline_stats import ask

    return ask(int(millions) * 1_000_000, Path(folder).absolute())


def main(arguments: list[str]) -> None:
    parts: dict[str, Callable[..., list[str]]] = {
        "stages": run_stages,
        "sustained": run_sustained,
        "kafka": run_kafka,
        "stats": run_stats,
    }
    for name in arguments[:1] or parts:
        print("\n".join(parts[name](*arguments[1:])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
