"""A follower's source on a real broker: what it holds when taking up a partition fails."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient
from psycopg_pool import ConnectionPool

from tallystick.clock import SystemClock
from tallystick.errors import StoreUnavailable
from tallystick.events.appending import seal_key
from tallystick.events.batch import Identity
from tallystick.events.redaction import Redactor
from tallystick.events.sources import KafkaSource, Known
from tallystick.plumbing.leases import Leases
from tallystick.plumbing.log import Positions
from tallystick.plumbing.log.kafka import KafkaOptions, KafkaWriter, ensure_topics
from tallystick.plumbing.postgres import open_pool
from tallystick.reconcile.freshness import Freshness
from tallystick.workers.sink import Sink
from tests.kafka_brokers import Brokers
from tests.kafka_reading import QUICK
from tests.world import World

EVENT = b'{"event_id":"e-%d","event_type":"run_started","event_time":"2026-01-01T00:00:00Z"}'


class AwayOnce:
    """What landed, asked of a store that does not answer the first time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, partition: int, start: int, end: int) -> Iterable[tuple[Identity, int]]:
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailable("ClickHouse does not answer")
        return []


def made_topic(broker: Brokers, topic: str) -> KafkaOptions:
    """A topic of one partition with five events; how to read it."""
    options = KafkaOptions(broker.bootstrap, topic, f"{topic}-broken", {})
    ensure_topics(options, partitions=1, replication=1)
    writer = KafkaWriter(options)
    writer.append(topic, [(b"run", EVENT % number) for number in range(5)])
    writer.close()
    return KafkaOptions(options.brokers, topic, options.broken_topic, QUICK)


def make_source(
    options: KafkaOptions, pool: ConnectionPool, folder: Path, known: Known
) -> KafkaSource:
    return KafkaSource(
        options,
        None,
        Positions(pool),
        Leases(pool, "test", seconds=5),
        follower="sink",
        instance_id="one",
        folder=folder,
        redactor=Redactor(b"k" * 32),
        key=seal_key("k"),
        known=known,
    )


def test_a_partition_that_could_not_be_taken_up_is_taken_up_later(
    kafka_broker: Brokers, postgres_url: str, tmp_path: Path
) -> None:
    """The index is opened before the facts are asked: a failure in between lets go of it."""
    topic = "taken-up-later"
    options = made_topic(kafka_broker, topic)
    pool, known = open_pool(postgres_url, connections_max=3), AwayOnce()
    Positions(pool).commit("sink", {0: 3}, SystemClock().now())  # and no index in the folder
    source = make_source(options, pool, tmp_path, known)
    with pytest.raises(StoreUnavailable):
        read_until_something(source)
    source.rewind()
    assert read_until_something(source) == [3, 4]
    assert known.asked == 2
    source.close()
    pool.close()


def test_lag_monitors_see_how_far_a_follower_is(
    kafka_broker: Brokers, postgres_url: str, tmp_path: Path
) -> None:
    """What kafka-consumer-groups shows is what the steps before took; it is never read back."""
    topic = "monitored"
    options = made_topic(kafka_broker, topic)
    pool = open_pool(postgres_url, connections_max=3)
    Positions(pool).forget("sink")
    source = make_source(options, pool, tmp_path, lambda *_: [])
    assert read_until_something(source) == [0, 1, 2, 3, 4]
    source.read(1000)
    source.close()
    pool.close()
    admin = AdminClient({"bootstrap.servers": options.brokers, "log_level": 0})
    group = confluent_kafka.ConsumerGroupTopicPartitions("tallystick-sink")
    answer = admin.list_consumer_group_offsets([group])["tallystick-sink"].result()
    assert {one.topic: one.offset for one in answer.topic_partitions}[topic] == 5


def test_a_topic_whose_beginning_was_deleted_before_we_came(
    kafka_broker: Brokers, world: World, tmp_path: Path
) -> None:
    """INV-10 counts from where the sink began; what was missing before was never its own."""
    topic = "began-without-us"
    options = made_topic(kafka_broker, topic)
    admin = AdminClient({"bootstrap.servers": options.brokers, "log_level": 0})
    cut = confluent_kafka.TopicPartition(topic, 0, 3)
    next(iter(admin.delete_records([cut]).values())).result()
    source = make_source(options, world.pool, tmp_path, lambda *_: [])
    world.positions.forget("sink")
    sink = Sink(source, world.positions, world.facts, world.catalog, world.pool, world.clock)
    try:
        assert any(sink.step() for _ in range(300)), "nothing came"
        assert world.positions.offset("sink", 0) == 5
        assert world.verifier.violations() == []
        freshness = Freshness(world.pool, FixedHeads({0: 5}), world.facts, world.clock).report()
        assert (freshness["accepted"], freshness["difference"]) == (2, 0)
        world.facts._store.command("TRUNCATE TABLE tallystick.facts")
        (found,) = world.verifier.violations()
        assert (found.invariant_id, found.count) == ("INV-10", 2)
    finally:
        source.close()
        world.positions.forget("sink")


class FixedHeads:
    """The ends of partitions, as a test says."""

    def __init__(self, ends: dict[int, int]) -> None:
        self._ends = ends

    def heads(self) -> dict[int, int]:
        return self._ends

    def waiting_since(self, partition: int, position: int) -> int | None:
        return None


def read_until_something(source: KafkaSource) -> list[int]:
    for _ in range(300):  # a tenth of a second each
        if chunks := source.read(1000):
            return list(chunks[0].offsets)
    raise AssertionError("nothing came")
