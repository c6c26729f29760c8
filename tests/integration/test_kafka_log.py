"""The usage log on real Kafka brokers: order, acknowledgement, faults, hand-over, loss.

One broker for the contract, three for the faults. More rounds of the faults by
TALLYSTICK_KILL_ROUNDS.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from tallystick.errors import (
    BodyTooLarge,
    InvalidInput,
    PositionLost,
    ReaderDisplaced,
    SlowDown,
    StoreUnavailable,
)
from tallystick.plumbing.embedded.child import spawn
from tallystick.plumbing.log.kafka import KafkaMessage, KafkaOptions, KafkaWriter, ensure_topics
from tallystick.plumbing.log.kafka.options import import_client
from tests.kafka_brokers import Brokers
from tests.kafka_reading import IMPATIENT, QUICK, Follower

ROUNDS = int(os.environ.get("TALLYSTICK_KILL_ROUNDS", "1"))
ROOT = Path(__file__).parents[2]
PARTITIONS = 4


@pytest.fixture
def options(kafka_broker: Brokers, request: pytest.FixtureRequest) -> KafkaOptions:
    """Topics of this test alone, on one broker."""
    return new_topics(kafka_broker, request.node.name)


@pytest.fixture
def cluster_options(kafka_cluster: Brokers, request: pytest.FixtureRequest) -> KafkaOptions:
    """Topics of this test alone, three replicas, two of them in sync at least."""
    return new_topics(kafka_cluster, request.node.name)


@pytest.fixture
def writer(options: KafkaOptions) -> Iterator[KafkaWriter]:
    made = KafkaWriter(options)
    yield made
    made.close()


def new_topics(brokers: Brokers, name: str) -> KafkaOptions:
    name = name.replace("[", "-").replace("]", "")
    options = KafkaOptions(
        brokers.bootstrap, topic=name, broken_topic=f"{name}-broken", properties=QUICK
    )
    ensure_topics(writing(options), partitions=PARTITIONS, replication=brokers.count)
    return writing(options)


def writing(options: KafkaOptions, **properties: str) -> KafkaOptions:
    """The same cluster with other properties."""
    return KafkaOptions(options.brokers, options.topic, options.broken_topic, properties)


def reading(options: KafkaOptions) -> KafkaOptions:
    return writing(options, **QUICK)


def numbered(keys: int, each: int) -> list[tuple[bytes, bytes]]:
    return [(b"run-%d" % key, b"%d" % number) for number in range(each) for key in range(keys)]


def by_key(messages: list[KafkaMessage]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {}
    for message in messages:
        found.setdefault(message.key, []).append(int(message.value))
    return found


def test_messages_of_a_key_come_back_in_order(options: KafkaOptions, writer: KafkaWriter) -> None:
    before = time.time_ns() // 1000
    for start in range(0, 1000, 100):
        writer.append(options.topic, numbered(50, 20)[start : start + 100])
    follower = Follower(reading(options))
    messages = follower.catch_up()
    assert by_key(messages) == {b"run-%d" % key: list(range(20)) for key in range(50)}
    assert sum(follower.reader.heads().values()) == 1000
    assert set(follower.reader.starts().values()) == {0}
    assert follower.assigned == set(range(PARTITIONS))
    assert all(abs(message.timestamp - before) < 60_000_000 for message in messages)
    follower.close()
    assert follower.assigned == set()


def test_an_append_returns_only_after_the_acknowledgement(
    kafka_broker: Brokers, options: KafkaOptions, writer: KafkaWriter
) -> None:
    writer.append(options.topic, [(b"k", b"0")])
    kafka_broker.pause(0)
    try:
        appending = threading.Thread(target=writer.append, args=(options.topic, [(b"k", b"1")]))
        appending.start()
        appending.join(1)
        assert appending.is_alive(), "it returned although no broker can have it"
    finally:
        kafka_broker.resume(0)
    appending.join(20)
    assert not appending.is_alive()
    follower = Follower(reading(options))
    assert sum(follower.reader.heads().values()) == 2
    follower.close()


def test_an_append_that_nobody_acknowledged_fails(
    kafka_broker: Brokers, options: KafkaOptions
) -> None:
    impatient = KafkaWriter(writing(options, **{"message.timeout.ms": "1000"}))
    append_in_the_end(impatient, options.topic, b"0")  # a new cluster takes its time
    kafka_broker.pause(0)
    try:
        with pytest.raises(StoreUnavailable):
            impatient.append(options.topic, [(b"k", b"1")])
    finally:
        kafka_broker.resume(0)
    append_in_the_end(impatient, options.topic, b"2")
    impatient.close()
    with pytest.raises(StoreUnavailable):
        impatient.append(options.topic, [(b"k", b"3")])
    follower = Follower(reading(options))
    assert {b"0", b"2"} <= {message.value for message in follower.catch_up()}
    follower.close()


def append_in_the_end(writer: KafkaWriter, topic: str, value: bytes) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            return writer.append(topic, [(b"k", value)])
        except StoreUnavailable:
            assert time.monotonic() < deadline


def test_a_full_queue_takes_nothing(
    kafka_broker: Brokers, options: KafkaOptions, writer: KafkaWriter
) -> None:
    many = numbered(60_000, 1)
    kafka_broker.pause(0)
    try:
        appending = threading.Thread(target=writer.append, args=(options.topic, many))
        appending.start()
        time.sleep(0.5)
        with pytest.raises(SlowDown):
            writer.append(options.topic, many)
    finally:
        kafka_broker.resume(0)
    appending.join(30)
    follower = Follower(reading(options))
    assert sum(follower.reader.heads().values()) == 60_000
    follower.close()


def test_a_message_that_is_too_large_is_refused_before_its_neighbours(
    options: KafkaOptions, writer: KafkaWriter
) -> None:
    with pytest.raises(BodyTooLarge):
        writer.append(options.topic, [(b"k", b"small"), (b"k", b"x" * 1_000_001)])
    follower = Follower(reading(options))
    assert sum(follower.reader.heads().values()) == 0
    follower.close()


def test_what_a_topic_refuses_is_not_the_senders_fault(
    options: KafkaOptions, writer: KafkaWriter
) -> None:
    """Its limit was lowered: events are to be kept and sent again, not given up."""
    admin = AdminClient({"bootstrap.servers": options.brokers, "log_level": 0})
    messages = [(b"k", random.Random(1).randbytes(900))]
    _limit_messages(admin, options.topic, 500)
    with pytest.raises(StoreUnavailable, match="too large"):
        _append_until(writer, options.topic, messages, is_taken=False)
    _limit_messages(admin, options.topic, 1_000_000)
    _append_until(writer, options.topic, messages, is_taken=True)


def _append_until(
    writer: KafkaWriter, topic: str, messages: list[tuple[bytes, bytes]], *, is_taken: bool
) -> None:
    """A broker takes up a new limit a moment after it has said so."""
    deadline = time.monotonic() + 60
    while True:
        try:
            writer.append(topic, messages)
        except StoreUnavailable:
            if not is_taken or time.monotonic() > deadline:
                raise
        else:
            if is_taken or time.monotonic() > deadline:
                return
        time.sleep(0.05)


def _limit_messages(admin: AdminClient, topic: str, size_bytes: int) -> None:
    kafka = import_client("confluent_kafka.admin")
    change = kafka.AlterConfigOpType.SET
    entry = kafka.ConfigEntry("max.message.bytes", str(size_bytes), incremental_operation=change)
    topics = kafka.ConfigResource.Type.TOPIC
    resource = kafka.ConfigResource(topics, topic, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()


def test_seek_back_and_replay(options: KafkaOptions, writer: KafkaWriter) -> None:
    writer.append(options.topic, numbered(20, 10))
    follower = Follower(reading(options))
    first = follower.catch_up()
    for start in (0, 7):
        follower.messages.clear()
        follower.positions = dict.fromkeys(range(PARTITIONS), start)
        follower.reader.seek(follower.positions)
        again = follower.catch_up()
        assert sorted(again) == sorted(message for message in first if message.offset >= start)
    follower.close()
    with pytest.raises(InvalidInput):
        follower.reader.seek({0: 0})


def test_positions_come_from_the_follower_never_from_kafka(
    options: KafkaOptions, writer: KafkaWriter
) -> None:
    writer.append(options.topic, numbered(20, 10))
    follower = Follower(reading(options))
    everything = follower.catch_up()
    follower.reader.note_progress(follower.positions)
    time.sleep(0.5)
    follower.close()
    admin = AdminClient({"bootstrap.servers": options.brokers, "log_level": 0})
    asked = confluent_kafka.ConsumerGroupTopicPartitions(options.topic)
    noted = admin.list_consumer_group_offsets([asked])[options.topic].result().topic_partitions
    mine = [one for one in noted if one.topic == options.topic]
    assert {one.partition: one.offset for one in mine} == follower.positions
    fresh = Follower(reading(options), positions={0: 5})
    assert sorted(fresh.catch_up()) == sorted(
        message for number, batch in follower.messages.items() for message in batch
        if number or message.offset >= 5
    )  # fmt: skip
    assert len(everything) == 200
    fresh.close()


def test_a_position_that_retention_deleted_is_a_loud_error(
    options: KafkaOptions, writer: KafkaWriter
) -> None:
    writer.append(options.topic, numbered(40, 10))
    admin = AdminClient({"bootstrap.servers": options.brokers, "log_level": 0})
    cut = confluent_kafka.TopicPartition(options.topic, 1, 30)
    next(iter(admin.delete_records([cut]).values())).result()
    follower = Follower(reading(options), positions={1: 10})
    lost = rf"partition 1 of {options.topic} has no position 10 .*\[30, .*20 messages"
    with pytest.raises(PositionLost, match=lost):
        follower.step_until(lambda: False)
    for _ in range(2):
        with pytest.raises(PositionLost, match=lost):
            follower.step()
    assert follower.reader.starts()[1] == 30
    follower.reader.seek({1: 30})
    follower.positions[1] = 30
    messages = follower.catch_up()
    assert len(messages) == len(set(messages)) == 400 - 30
    follower.close()


def test_a_position_past_the_end_is_a_loud_error(
    options: KafkaOptions, writer: KafkaWriter
) -> None:
    writer.append(options.topic, numbered(10, 1))
    follower = Follower(reading(options), positions={2: 1_000_000})
    with pytest.raises(PositionLost, match=r"the log ends before it"):
        follower.step_until(lambda: False)
    follower.close()


def test_a_foreign_producer_is_read_as_it_is(options: KafkaOptions, writer: KafkaWriter) -> None:
    foreign = confluent_kafka.Producer(
        {"bootstrap.servers": options.brokers, "partitioner": "murmur2"}
    )
    value = json.dumps({"event_id": "e-1", "event_type": "run_started", "run_id": "run-7"})
    foreign.produce(options.topic, value, "run-7")
    foreign.produce(options.topic, None, None)
    assert foreign.flush(10) == 0
    writer.append(options.topic, [(b"run-7", b"ours")])
    follower = Follower(reading(options))
    follower.catch_up()
    of_run = {
        number: [message.value for message in batch if message.key == b"run-7"]
        for number, batch in follower.messages.items()
    }
    assert [value.encode(), b"ours"] in of_run.values(), "one run, one partition"
    assert (b"", b"") in {
        (one.key, one.value) for batch in follower.messages.values() for one in batch
    }
    follower.close()


def test_a_time_stamp_from_nowhere_is_bounded(kafka_broker: Brokers) -> None:
    """Where producers stamp messages, one in the wrong unit must not stop who stores it."""
    options = writing(KafkaOptions(kafka_broker.bootstrap, topic="own-stamps"))
    own = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(2**63 - 1)}
    admin = import_client("confluent_kafka.admin")
    topic = admin.NewTopic(options.topic, 1, replication_factor=1, config=own)
    client = AdminClient({"bootstrap.servers": options.brokers})
    client.create_topics([topic])[options.topic].result(20)
    foreign = confluent_kafka.Producer({"bootstrap.servers": options.brokers})
    foreign.produce(options.topic, b"{}", b"run", timestamp=1_790_000_000_000_000_000)
    assert foreign.flush(10) == 0
    follower = Follower(reading(options))
    (message,) = follower.catch_up()
    follower.close()
    assert message.timestamp == 4_102_444_800_000_000


def test_two_readers_split_and_a_restart_disturbs_nobody(
    options: KafkaOptions, writer: KafkaWriter
) -> None:
    names = ("one", "two")
    group = {name: Follower(reading(options), instance_id=name) for name in names}
    step_together(group, lambda: [len(group[name].assigned) for name in names] == [2, 2])
    assert group["one"].assigned | group["two"].assigned == set(range(PARTITIONS))
    writer.append(options.topic, numbered(50, 4))
    for name, other in (("one", "two"), ("two", "one")):  # one of them is the group's leader
        stopped, changes, held = group[name], group[other].changes, set(group[name].assigned)
        stopped.close()
        group[name] = Follower(reading(options), instance_id=name, positions=stopped.positions)
        group[name].messages = stopped.messages
        step_together(group, partial(has_share, group[name], held))
        assert group[other].changes == changes, "the other one was disturbed"
    came = [group[name].messages for name in names]
    step_together(group, lambda: sum(len(b) for found in came for b in found.values()) == 200)
    for name in names:
        group[name].close()


def has_share(follower: Follower, share: set[int]) -> bool:
    return follower.assigned == share


def step_together(group: dict[str, Follower], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline, [one.assigned for one in group.values()]
        for one in group.values():
            one.step(0.05)


def test_the_later_of_two_with_one_name_reads_on(options: KafkaOptions) -> None:
    first = Follower(reading(options), instance_id="same")
    first.step_until(lambda: len(first.assigned) == PARTITIONS)
    second = Follower(reading(options), instance_id="same")
    second.step_until(lambda: len(second.assigned) == PARTITIONS)
    with pytest.raises(ReaderDisplaced):
        first.step_until(lambda: False)
    with pytest.raises(ReaderDisplaced):
        first.step()
    assert first.assigned == set(), "it was told to let go"
    first.close()
    second.step()
    second.close()


def test_a_callback_that_fails_stops_the_reader(options: KafkaOptions) -> None:
    broken = Follower(reading(options), instance_id="one")
    broken.reader._on_assigned = lambda _: {}
    for _ in range(2):
        with pytest.raises(KeyError):
            broken.step_until(lambda: False)
    broken.close()
    mended = Follower(reading(options), instance_id="one")
    mended.step_until(lambda: len(mended.assigned) == PARTITIONS)
    mended.close()


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_a_killed_reader_hands_over_or_comes_back_at_once(
    round_number: int, options: KafkaOptions, writer: KafkaWriter
) -> None:
    other = Follower(reading(options), instance_id="other")
    other.step_until(lambda: len(other.assigned) == PARTITIONS)
    process = reader_process(options)
    held = wait_for_share(process, other)
    kill_process(process)
    changes = other.changes
    process = reader_process(options)  # within its session: nobody notices
    assert wait_for_share(process, other) == held
    assert other.changes == changes
    writer.append(options.topic, numbered(50, 4))
    kill_process(process)
    other.step_until(lambda: len(other.assigned) == PARTITIONS)  # after its session
    assert len(other.catch_up()) == 200
    other.close()


def reader_process(options: KafkaOptions) -> subprocess.Popen[bytes]:
    return spawn(
        [sys.executable, "-m", "tests.kafka_reading", options.brokers, options.topic, "it"],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.PIPE,
        environment={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )


def kill_process(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def wait_for_share(process: subprocess.Popen[bytes], other: Follower) -> list[int]:
    """Wait until a process tells that it has two partitions, while the other one reads."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        other.step(0.05)
        for line in process.stdout.readlines():
            share: list[int] = json.loads(line)
            if len(share) == 2:
                return share
    raise AssertionError("the process got no share")


def test_topics_are_made_once_and_never_altered(
    kafka_broker: Brokers, options: KafkaOptions, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="tallystick.kafka"):
        ensure_topics(options, partitions=PARTITIONS, replication=1)
        assert not caplog.messages
        ensure_topics(options, partitions=PARTITIONS + 1, replication=3)
    told = "\n".join(caplog.messages)
    assert "4 partitions, 5 were asked for" in told
    assert "min.insync.replicas is 1" in told
    other = KafkaOptions(options.brokers, topic="never-made", broken_topic="never-made-either")
    with pytest.raises(InvalidInput, match="refused to create"):
        ensure_topics(other, partitions=1, replication=3)


class Load:
    """Threads that append and send again what was refused, as a door's callers do."""

    def __init__(self, options: KafkaOptions, threads: int = 2) -> None:
        self.options = options
        self.writer = KafkaWriter(writing(options, **IMPATIENT))
        self.acknowledged: dict[bytes, list[int]] = {}
        self.refused = 0
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(b"run-%d" % number,), daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self, count: int = 20) -> None:
        """Wait until every thread had further appends acknowledged."""
        before = {key: len(found) for key, found in self.acknowledged.items()}
        deadline = time.monotonic() + 60
        while any(
            len(self.acknowledged.get(b"run-%d" % number, ())) < before.get(b"run-%d" % number, 0)
            + count
            for number in range(len(self._threads))
        ):  # fmt: skip
            assert time.monotonic() < deadline, "appends do not go on"
            time.sleep(0.02)

    def end(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        self.writer.close()

    def check_nothing_was_lost(self) -> None:
        follower = Follower(reading(self.options), group="auditor")
        found = by_key(follower.catch_up())
        follower.close()
        for key, acknowledged in self.acknowledged.items():
            firsts = list(dict.fromkeys(found[key]))
            assert set(acknowledged) <= set(firsts), "acknowledged and lost"
            if not self.refused:
                assert found[key] == acknowledged, "doubled or out of order"

    def _send(self, key: bytes) -> None:
        acknowledged = self.acknowledged.setdefault(key, [])
        number = 0
        while not self._ending.is_set():
            batch = [(key, b"%d" % one) for one in range(number, number + 10)]
            try:
                self.writer.append(self.options.topic, batch)
            except StoreUnavailable:
                self.refused += 1
                continue
            acknowledged.extend(range(number, number + 10))
            number += 10


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_one_broker_of_three_killed_mid_append(
    round_number: int, kafka_cluster: Brokers, cluster_options: KafkaOptions
) -> None:
    load = Load(cluster_options)
    load.wait_for_more()
    kafka_cluster.kill(round_number % 3)
    load.wait_for_more(50)
    kafka_cluster.wait_until_ready()
    load.wait_for_more()
    kafka_cluster.restart(round_number % 3)
    kafka_cluster.wait_until_ready()
    load.end()
    load.check_nothing_was_lost()


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_all_brokers_killed_in_turn(
    round_number: int, kafka_cluster: Brokers, cluster_options: KafkaOptions
) -> None:
    load = Load(cluster_options)
    for index in range(kafka_cluster.count):
        load.wait_for_more()
        kafka_cluster.kill(index)
        load.wait_for_more()
        kafka_cluster.restart(index)
        kafka_cluster.wait_until_ready()
    load.end()
    load.check_nothing_was_lost()


def count(follower: Follower) -> int:
    """Messages that ever came."""
    return sum(map(len, follower.messages.values()))


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_a_paused_broker(
    round_number: int, kafka_cluster: Brokers, cluster_options: KafkaOptions
) -> None:
    follower = Follower(reading(cluster_options))
    load = Load(cluster_options)
    load.wait_for_more()
    # a client that was about to join waits for its coordinator as long as it may poll: five minutes
    follower.step_until(lambda: bool(follower.assigned), seconds=60)
    before = len(follower.catch_up())
    kafka_cluster.pause(round_number % 3)
    try:
        load.wait_for_more(50)
        with contextlib.suppress(ReaderDisplaced):
            follower.step_until(lambda: count(follower) > before, seconds=60)
    finally:
        kafka_cluster.resume(round_number % 3)
    kafka_cluster.wait_until_ready()
    load.wait_for_more()
    load.end()
    try:
        found = by_key(follower.catch_up())
    except ReaderDisplaced:  # the new coordinator took it for two: the one before the pause, and it
        follower.begin_again()
        found = by_key(follower.catch_up())
    follower.close()
    assert {key: set(sent) - set(found[key]) for key, sent in load.acknowledged.items()} == {
        key: set() for key in load.acknowledged
    }
    load.check_nothing_was_lost()


@pytest.mark.slow
def test_two_of_three_in_sync_are_a_must(
    kafka_cluster: Brokers, cluster_options: KafkaOptions
) -> None:
    writer = KafkaWriter(writing(cluster_options, **{"message.timeout.ms": "3000"}))
    writer.append(cluster_options.topic, [(b"k", b"0")])
    kafka_cluster.pause(1)
    kafka_cluster.pause(2)
    try:
        with pytest.raises(StoreUnavailable):
            writer.append(cluster_options.topic, [(b"k", b"1")])
    finally:
        kafka_cluster.resume(1)
        kafka_cluster.resume(2)
    kafka_cluster.wait_until_ready()
    writer.close()
