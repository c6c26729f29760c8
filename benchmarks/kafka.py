"""Speed of the Kafka writer and reader alone, on one real broker on this machine.

    python -m benchmarks.kafka [messages]

Method. One broker (1 GiB heap, the JVM's own compiler settings) on a fresh folder, 12
partitions, no replica; values are JSON events of about 500 bytes that differ from each other,
keys are run ids of 25 events. Broker, writer and reader share the machine's cores; the CPU
seconds are those of this process (librdkafka's threads included), not of the broker. The
writer appends requests of 500 messages, alone and from 4 threads, as a door does; the reader
reads all of it from the start in pieces of 20,000. Three rounds, medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from tests.kafka_brokers import Brokers

from tallystick.plumbing.log.kafka import KafkaOptions, KafkaReader, KafkaWriter, ensure_topics

MESSAGES = 600_000
BATCH = 500
ROUNDS = 3
PARTITIONS = 12
EVENTS_PER_RUN = 25

Batch = list[tuple[bytes, bytes]]


class Measured(NamedTuple):
    """One step: messages a second, and CPU seconds of this process for a million of them."""

    per_second: float
    cpu_seconds_per_million: float


def batches(total: int) -> list[Batch]:
    """Requests of events that differ in ids, times and counts."""
    encoder = msgspec.json.Encoder()
    made: list[Batch] = []
    for start in range(0, total, BATCH):
        batch = []
        for number in range(start, start + BATCH):
            run = f"run-{number // EVENTS_PER_RUN:012d}"
            event = {
                "event_id": f"{run}-{number:012d}-{number * 2654435761 % 2**32:08x}",
                "event_type": "token_usage",
                "event_time": f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}.123456Z",
                "tenant_id": f"tenant-{number % 7}",
                "run_id": run,
                "request_id": f"req-{number * 40503 % 2**31:010x}",
                "source": "gateway",
                "workflow": "customer-support",
                "agent": "refund-helper",
                "user_id": f"user-{number % 9973}",
                "team": "payments",
                "provider": "anthropic",
                "model": "claude-sonnet-4-5",
                "tokens_input": number % 5000 + 120,
                "tokens_output": number % 700,
                "tokens_cache_read": number % 3000,
                "latency_ms": 150 + number % 2000,
                "environment": "production",
            }
            batch.append((run.encode(), encoder.encode(event)))
        made.append(batch)
    return made


def measure(count: int, work: Callable[[], None]) -> Measured:
    """Time some work on `count` messages."""
    started, cpu_started = time.perf_counter(), time.process_time()
    work()
    wall = time.perf_counter() - started
    return Measured(count / wall, (time.process_time() - cpu_started) / count * 1e6)


def append_all(writer: KafkaWriter, topic: str, made: list[Batch], threads: int) -> None:
    """Append every batch, from some threads."""
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda batch: writer.append(topic, batch), made):
            pass


def read_all(options: KafkaOptions, group: str, count: int) -> None:
    """Read `count` messages from the start."""
    reader = KafkaReader(
        options,
        group=group,
        instance_id="bench",
        on_assigned=lambda numbers: dict.fromkeys(numbers, 0),
        on_revoked=lambda _: None,
    )
    while count > 0:
        count -= sum(map(len, reader.read(20_000, 1.0).values()))
    reader.close()


def append_latencies_ms(writer: KafkaWriter, topic: str, batch: Batch) -> list[float]:
    """How long one request waits for its acknowledgement when nothing else goes on."""
    found = []
    for _ in range(200):
        started = time.perf_counter()
        writer.append(topic, batch)
        found.append((time.perf_counter() - started) * 1000)
    return sorted(found)


def run_round(brokers: Brokers, number: int, made: list[Batch]) -> dict[str, Measured]:
    """All steps once, on a topic of their own."""
    options = KafkaOptions(brokers.bootstrap, topic=f"round-{number}")
    ensure_topics(options, partitions=PARTITIONS, replication=1)
    writer = KafkaWriter(options)
    writer.append(options.topic, made[0])
    total = len(made) * BATCH
    steps = {}
    for threads in (1, 4):
        append = partial(append_all, writer, options.topic, made, threads)
        steps[f"append, {threads} threads"] = measure(total, append)
    latencies = append_latencies_ms(writer, options.topic, made[0])
    sys.stdout.write(f"append of {BATCH}, alone: P50 {latencies[100]:.1f} ms, ")
    sys.stdout.write(f"P95 {latencies[190]:.1f} ms\n")
    writer.close()
    read = partial(read_all, options, f"group-{number}", 2 * total)
    steps["read, joining the group included"] = measure(2 * total, read)
    return steps


def main(total: int) -> None:
    """Print one line a step."""
    made = batches(total)
    size = statistics.mean(len(value) for _, value in made[0])
    print(f"{total} messages of {size:.0f} bytes, {PARTITIONS} partitions, one broker")
    with tempfile.TemporaryDirectory() as name:
        brokers = Brokers(1, Path(name), heap_megabytes=1024, java_options=("-XX:+UseSerialGC",))
        try:
            brokers.start()
            rounds = [run_round(brokers, number, made) for number in range(ROUNDS + 1)]
        finally:
            brokers.stop()
    for step in rounds[0]:
        measured = [one[step] for one in rounds[1:]]  # the first warmed the broker's compiler
        speed = statistics.median(one.per_second for one in measured)
        cpu = statistics.median(one.cpu_seconds_per_million for one in measured)
        print(f"{step}: {speed:,.0f} messages/s, {cpu:.1f} CPU seconds a million")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES)
