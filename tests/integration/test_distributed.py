"""The distributed form: several of each process on Kafka and PostgreSQL, killed at any time.

TALLYSTICK_KILL_ROUNDS sets how often (make soak raises it).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from confluent_kafka import Producer

from tallystick.clock import SystemClock, format_time
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log.kafka import KafkaMessage, KafkaOptions, KafkaReader, KafkaWriter
from tests.conftest import make_database
from tests.distributed import LEASE_SECONDS, Cluster
from tests.kafka_brokers import Brokers

ROUNDS = int(os.environ.get("TALLYSTICK_KILL_ROUNDS", "4"))
_topics = count(1)


@pytest.fixture
def cluster(tmp_path: Path, postgres_url: str, kafka_broker: Brokers) -> Iterator[Cluster]:
    made = Cluster(
        tmp_path,
        postgres_url,
        kafka_broker.bootstrap,
        f"distributed-{os.getpid()}-{next(_topics)}",
        TALLYSTICK_KAFKA_PARTITIONS="4",
    )
    yield made
    made.stop()


@pytest.fixture
def postgres_url(postgres: EmbeddedPostgres) -> str:
    """A database for each test: positions are of one topic."""
    return make_database(postgres, f"distributed_{next(_topics)}_{os.getpid()}")


def usage(tag: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"{tag}-{number}",
        "event_type": "token_usage",
        "event_time": format_time(SystemClock().now() - number * 1000),
        "tenant_id": "acme",
        "run_id": f"{tag}-run-{number % 23}",
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_input": 100,
        "tokens_output": 10,
        **more,
    }


def post(client: httpx.Client, events: list[dict[str, Any]]) -> dict[str, Any]:
    while True:
        try:
            answer = client.post("/v1/events", json=events)
            if answer.status_code == 200:
                receipt: dict[str, Any] = answer.json()
                return receipt
        except httpx.HTTPError:
            pass
        time.sleep(0.05)


def assert_exact(client: httpx.Client, total: int) -> None:
    (row,) = client.get("/v1/stats", params={"from": "2020-01-01T00:00:00Z"}).json()["rows"]
    assert row["calls"] == total
    assert row["tokens_input"] == total * 100
    assert Decimal(row["cost_usd"]) == total * Decimal("0.00035")
    assert Decimal(row["credits"]) == total * Decimal("0.042")
    balance = client.get("/v1/accounts/acme/balance").json()
    assert Decimal(balance["available"]) == -total * Decimal("0.042")
    assert client.get("/v1/verification").json()["violations"] == []


def test_one_of_each_from_http_and_from_a_foreign_producer(cluster: Cluster) -> None:
    client = cluster.api()
    for role in ("sink", "charger", "keeper"):
        cluster.worker(role)
    events = [usage("http", number) for number in range(300)]
    assert post(client, events)["accepted"] == 300
    assert post(client, events[:50])["accepted"] == 50  # told apart behind the log
    writer = KafkaWriter(cluster.kafka)
    foreign = [usage("kafka", number) for number in range(200)]
    messages = [(one["run_id"].encode(), json.dumps(one).encode()) for one in foreign]
    messages += messages[:30]
    messages += [
        (b"x", b'{"event_id": "half'),
        (b"y", json.dumps(usage("k", 1, tokens_input=-1)).encode()),
    ]
    secret = {**usage("kafka", 500), "prompt": "Mia Li, 4111 1111 1111 1111"}
    messages += [(b"pretty", json.dumps(secret, indent=2).encode())]
    forged = b"\xc1ts1" + b"0" * 16 + b"\x90"
    messages += [(b"forged", forged)]
    writer.append(cluster.kafka.topic, messages)
    writer.close()
    report = cluster.settle(client)
    assert report["facts"] == 300 + 200 + 1 + 3
    assert report["duplicates"] == 50 + 30
    assert_exact(client, 501)
    codes = sorted(
        one["code"] for one in client.get("/v1/broken-messages").json()["broken_messages"]
    )
    assert codes == ["invalid_json", "invalid_utf8", "negative_number"]
    told = read_all(cluster.kafka.broken_topic, cluster.kafka)
    assert sorted(json.loads(one.value)["code"] for one in told) == codes
    assert not any(b"4111 1111" in one.value or b"Mia" in one.value for one in told)
    story = client.get("/v1/runs/kafka-run-17").json()
    assert "4111 1111" not in json.dumps(story)


def test_what_a_producer_aborts_is_passed_by_to_the_end(cluster: Cluster) -> None:
    """INV-10: no lag is left where nothing can be read, and nobody waits for it."""
    client = cluster.api()
    for role in ("sink", "charger", "keeper"):
        cluster.worker(role)
    producer = Producer(
        {
            "bootstrap.servers": cluster.kafka.brokers,
            "partitioner": "murmur2_random",
            "transactional.id": f"tx-{cluster.kafka.topic}",
        }
    )
    producer.init_transactions(30)
    for tag, events, is_kept in (("kept", 100, True), ("aborted", 25_000, False)):
        producer.begin_transaction()
        for number in range(events):
            one = usage(tag, number, run_id=f"{tag}-run")
            producer.produce(cluster.kafka.topic, json.dumps(one), one["run_id"])
            producer.poll(0)
        producer.flush(30)
        if is_kept:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    report = cluster.settle(client)  # lag and difference are 0, with nothing behind the markers
    assert (report["facts"], report["markers"]) == (100, 25_002)
    asked = {"from": "2026-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z", "reason": "look"}
    made = client.post("/v1/backfills", json={**asked, "idempotency_key": "b", "dry_run": True})
    place = f"/v1/backfills/{made.json()['backfill_id']}"
    deadline = time.monotonic() + 30
    while client.get(place).json()["status"] != "done":
        assert time.monotonic() < deadline, client.get(place).text
        time.sleep(0.2)
    producer.begin_transaction()  # what is still open holds nobody up, and counts when it is over
    producer.produce(cluster.kafka.topic, json.dumps(usage("open", 1)), b"kept-run")
    producer.flush(30)
    cluster.settle(client)
    producer.commit_transaction(30)
    post(client, [usage("http", 1)])
    assert cluster.settle(client)["facts"] == 102
    assert_exact(client, 102)


def read_all(topic: str, options: KafkaOptions) -> list[KafkaMessage]:
    reader = KafkaReader(
        KafkaOptions(brokers=options.brokers, topic=topic),
        group=f"look-{topic}",
        instance_id="look",
        on_assigned=lambda partitions: dict.fromkeys(partitions, 0),
        on_revoked=lambda _: None,
    )
    found: list[KafkaMessage] = []
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline and len(found) < sum(reader.heads().values()):
            for messages in reader.read(1000, 0.2).values():
                found += messages
    finally:
        reader.close()
    return found


class Load(threading.Thread):
    """Sends requests to an API, each until it is acknowledged, some twice."""

    def __init__(self, client: httpx.Client, tag: str, requests: int, size: int) -> None:
        super().__init__(daemon=True)
        self.client, self.tag, self.requests, self.size = client, tag, requests, size
        self.sent = 0

    def run(self) -> None:
        for number in range(self.requests):
            start = number * self.size
            events = [usage(self.tag, index) for index in range(start, start + self.size)]
            post(self.client, events)
            if number % 10 == 0:
                post(self.client, events)
            self.sent += 1
            time.sleep(0.02)


def test_workers_killed_and_paused_at_random_points(cluster: Cluster) -> None:
    """INV-05, INV-09, INV-10: two sinks and two chargers; one is killed or hangs each round."""
    rng = random.Random(os.environ.get("TALLYSTICK_KILL_SEED", "7"))
    client = cluster.api()
    names = [cluster.worker("sink", f"sink-{number}") for number in (1, 2)]
    names += [cluster.worker("charger", f"charger-{number}") for number in (1, 2)]
    cluster.worker("scheduler")
    load = Load(client, "load", requests=40 * ROUNDS, size=50)
    load.start()
    for kill in range(ROUNDS):
        while load.sent < load.requests * (kill + 1) // (ROUNDS + 1):
            time.sleep(0.01)
        name = rng.choice(names)
        if rng.random() < 0.3:
            cluster.pause(name)  # a zombie: it wakes up when others have taken over
            time.sleep(LEASE_SECONDS + rng.uniform(0.5, 2))
            cluster.resume(name)
        else:
            cluster.kill(name)
            time.sleep(rng.uniform(0, 0.5))
            cluster.worker(name.partition("-")[0], name)
    load.join(120)
    assert not load.is_alive()
    cluster.settle(client, seconds=180)
    assert_exact(client, 40 * ROUNDS * 50)


def test_positions_set_back_double_nothing_and_a_lost_index_is_made_anew(cluster: Cluster) -> None:
    client = cluster.api()
    cluster.worker("sink")
    cluster.worker("charger")
    events = [usage("again", number) for number in range(400)]
    post(client, events)
    cluster.settle(client)
    cluster.kill("sink")
    with psycopg.connect(cluster.environment["TALLYSTICK_POSTGRES_URL"], autocommit=True) as one:
        one.execute(b"UPDATE log.follower SET position = 0 WHERE follower = 'sink'")
    cluster.worker("sink")  # reads the topic again
    cluster.settle(client)
    assert_exact(client, 400)
    cluster.kill("sink")
    shutil.rmtree(cluster._folder / "data-sink")  # the disk with the indexes is gone
    cluster.worker("sink")
    post(client, events[:100])  # repeats, judged by an index made of the facts
    report = cluster.settle(client)
    assert report["duplicates"] == 100
    assert_exact(client, 400)
