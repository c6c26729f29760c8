"""Kafka to facts: how fast sink processes empty a topic that is already full.

One broker, one PostgreSQL and chDB behind HTTP, each a process of its own, beside the sinks
on the same cores; so the wall clock says little of a sink that has a core to itself, and the
CPU seconds of each process say the rest. They count from when a sink said that it was ready.
Messages are those of our doors (`made_by` "door") or the JSON of other producers ("others").
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import psycopg
from tests.conftest import make_database
from tests.distributed import Cluster
from tests.kafka_brokers import Brokers

from benchmarks.serve import bodies
from tallystick.clock import SystemClock
from tallystick.events.adapters import parse_body
from tallystick.events.appending import KafkaAppender, seal_key
from tallystick.events.batch import identities_of
from tallystick.events.redaction import Redactor
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log.kafka import KafkaWriter

_JVM = ("-Xms64m", "-XX:+UseSerialGC", "-Xshare:auto")
_PARTS = {
    "chdb_server": "ClickHouse",
    "worker sink": "sinks",
    "kafka.Kafka": "broker",
    "postgres": "PostgreSQL",
}
"""Part of a command line -> whose process it is; the first that fits."""
_SECONDS_MAX = 900

Topic = Callable[[Cluster, int], None]


class Drained(NamedTuple):
    """What emptying a topic took."""

    partitions: int
    sinks: int
    events: int
    per_second: float
    cpu_seconds: dict[str, float]
    """By part (`_PARTS`), of all its processes."""
    sink_megabytes: float
    """The largest resident set of a sink that was seen."""


def kafka_to_facts(total: int, partitions: int, sinks: int, made_by: str = "door") -> Drained:
    """Fill a topic, start the sinks, and time until every event is a fact."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        brokers = Brokers(1, folder / "kafka", heap_megabytes=512, java_options=_JVM).start()
        data = DataFolder(folder / "pg")
        postgres = EmbeddedPostgres(data)
        postgres.start()
        cluster = Cluster(
            folder / "cluster",
            make_database(postgres, "pipeline"),
            brokers.bootstrap,
            f"pipeline-{os.getpid()}-{partitions}-{sinks}",
            TALLYSTICK_KAFKA_PARTITIONS=str(partitions),
        )
        try:
            {"door": _fill_as_door, "others": _fill_as_others}[made_by](cluster, total)
            return _drain(cluster, total, partitions, sinks)
        finally:
            cluster.stop()
            postgres.stop()
            data.close()
            brokers.stop()


def _fill_as_door(cluster: Cluster, total: int) -> None:
    secret = cluster.environment["TALLYSTICK_REDACTION_KEY"]
    writer = KafkaWriter(cluster.kafka)
    appender = KafkaAppender(writer, cluster.kafka.topic, seal_key(secret))
    now = SystemClock().now()
    for body in bodies("k", total, 10_000):
        parsed = parse_body(
            body,
            content_type="application/json",
            content_encoding="",
            headers={},
            received_at=now,
            redactor=Redactor(secret.encode()),
        )
        batch = parsed.batch
        appender.append(batch, identities_of(batch.columns, batch.size), now)
    writer.close()


def _fill_as_others(cluster: Cluster, total: int) -> None:
    writer = KafkaWriter(cluster.kafka)
    for body in bodies("k", total, 10_000):
        events = msgspec.json.decode(body, type=list[msgspec.Raw])
        keys = (msgspec.json.decode(one)["run_id"].encode() for one in events)
        writer.append(
            cluster.kafka.topic, list(zip(keys, (bytes(one) for one in events), strict=True))
        )
    writer.close()


def _drain(cluster: Cluster, total: int, partitions: int, sinks: int) -> Drained:
    for number in range(sinks):
        cluster.worker("sink", f"sink-{number}")
    before = _cpu_seconds()
    first = started = peak = 0.0
    deadline = time.monotonic() + _SECONDS_MAX
    while (count := _landed(cluster)) < total:
        if count and not started:
            started, first = time.perf_counter(), count
        peak = max(peak, _sink_megabytes())
        assert time.monotonic() < deadline, cluster.logs()
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    after = _cpu_seconds()
    store = ClickHouse(cluster.clickhouse_url)
    facts = store.query_rows("SELECT count() AS facts FROM tallystick.facts")[0]["facts"]
    store.close()
    assert facts == total, facts
    used = {part: after[part] - before[part] for part in after}
    return Drained(partitions, sinks, total, (total - first) / seconds, used, peak)


def _cpu_seconds() -> dict[str, float]:
    used = dict.fromkeys(_PARTS.values(), 0.0)
    for process, part in _processes():
        used[part] += sum(process.cpu_times()[:2])
    return used


def _sink_megabytes() -> float:
    return max(one.memory_info().rss / 1e6 for one, part in _processes() if part == "sinks")


def _processes() -> list[tuple[psutil.Process, str]]:
    """Our children with the part that each is."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        part = next((name for text, name in _PARTS.items() if text in line), "")
        if part:
            found.append((process, part))
    return found


def _landed(cluster: Cluster) -> int:
    """Events below the sinks' positions."""
    with psycopg.connect(cluster.environment["TALLYSTICK_POSTGRES_URL"]) as connection:
        row = connection.execute(
            b"SELECT coalesce(sum(position), 0) FROM log.follower WHERE follower = 'sink'"
        ).fetchone()
    return int(row[0]) if row else 0
