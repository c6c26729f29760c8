"""Kafka to facts: how fast sink processes empty a topic that is already full."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import psutil
import psycopg
from tests.conftest import make_database
from tests.distributed import Cluster
from tests.kafka_brokers import Brokers

from benchmarks.run import bodies
from tallystick.clock import SystemClock
from tallystick.events.adapters import parse_body
from tallystick.events.appending import KafkaAppender, seal_key
from tallystick.events.batch import identities_of
from tallystick.events.redaction import Redactor
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log.kafka import KafkaWriter


def kafka_to_facts(total: int, partitions: int, sinks: int) -> str:
    """Fill a topic, start the sinks, and time until every event is a fact."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        brokers = Brokers(1, folder / "kafka").start()
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
            _fill(cluster, total)
            return _drain(cluster, total, partitions, sinks)
        finally:
            cluster.stop()
            postgres.stop()
            data.close()
            brokers.stop()


def _fill(cluster: Cluster, total: int) -> None:
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


def _drain(cluster: Cluster, total: int, partitions: int, sinks: int) -> str:
    store = ClickHouse(cluster.clickhouse_url)
    names = [cluster.worker("sink", f"sink-{number}") for number in range(sinks)]
    first = started = 0.0
    while True:
        count = _landed(cluster)
        if count and not started:
            started, first = time.perf_counter(), count
        if count >= total:
            break
        time.sleep(0.1)
    seconds = time.perf_counter() - started
    used = {name: psutil.Process(cluster._processes[name].pid).cpu_times() for name in names}
    cpu = sum(sum(times[:2]) for times in used.values())
    rss = max(psutil.Process(cluster._processes[name].pid).memory_info().rss for name in names)
    facts = store.query_rows("SELECT count() AS facts FROM tallystick.facts")[0]["facts"]
    store.close()
    assert facts == total, facts
    return (
        f"| {partitions} partitions, {sinks} sink processes, {total:,} events | "
        f"{(total - first) / seconds:,.0f} events/s | sinks used {cpu / total * 1e6:.1f} "
        f"microseconds of CPU an event in all; {rss / 1e6:,.0f} MB RSS a sink |"
    )


def _landed(cluster: Cluster) -> int:
    """Events below the sinks' positions."""
    with psycopg.connect(cluster.environment["TALLYSTICK_POSTGRES_URL"]) as connection:
        row = connection.execute(
            b"SELECT coalesce(sum(position), 0) FROM log.follower WHERE follower = 'sink'"
        ).fetchone()
    return int(row[0]) if row else 0
