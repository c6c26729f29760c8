"""Topics: make what is missing, complain about what is unsafe, alter nothing.

A topic that Tallystick makes stamps records with the broker's time (LogAppendTime): retention
goes by that stamp, and a producer that writes last month's events with last month's stamps
would otherwise have them deleted before anyone has read them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tallystick.errors import InvalidInput, StoreUnavailable
from tallystick.plumbing.log.kafka.options import (
    KafkaOptions,
    configure,
    connect,
    import_client,
    log,
)

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._metadata import PartitionMetadata, TopicMetadata

RETENTION_DAYS = 14
"""The late window of 7 days plus the longest outage that a follower may have."""

_ANSWER_SECONDS = 15
_APPEAR_SECONDS = 30
_ELECTION_SECONDS = 10
_REGISTER_SECONDS = 10
_DAY_MS = 24 * 3600 * 1000
_FEWEST_DAYS = 7
MESSAGE_BYTES_MAX = 1_000_000
"""What a batch or a message may have at most, by the settings of the writer."""


class TopicState(NamedTuple):
    """What a topic has and demands."""

    partitions: int
    replication: int
    in_sync_min: int
    retention_ms: int
    """Negative: for ever."""
    timestamp_type: str
    message_bytes_max: int
    cleanup_policy: str


def ensure_topics(options: KafkaOptions, *, partitions: int, replication: int) -> None:
    """Make the topics that are missing; log a warning for each that is not as safe.

    Raises StoreUnavailable when the cluster cannot be reached, InvalidInput when it refuses
    (more replicas than brokers, no right to create).
    """
    admin = open_admin(options)
    topics = (options.topic, options.broken_topic)
    found = fetch_partitions(admin)
    if missing := [topic for topic in topics if topic not in found]:
        _wait_for_brokers(admin, replication)
        _create(admin, missing, partitions, replication)
    for topic in topics:
        state = fetch_state(admin, topic)
        for complaint in check_topic(state, partitions=partitions, replication=replication):
            log.warning("topic %s: %s", topic, complaint)


def check_topic(state: TopicState, *, partitions: int, replication: int) -> list[str]:
    """Say what of a topic loses messages, or differs from what was asked for."""
    complaints = []
    safe_min = 2 if replication >= 3 else 1
    if state.replication < replication:
        complaints.append(f"has {state.replication} replicas, {replication} were asked for")
    if state.in_sync_min < safe_min:
        complaints.append(
            f"min.insync.replicas is {state.in_sync_min}: what is acknowledged may be on one disk "
            f"only and be lost with it; set it to {safe_min}"
        )
    if state.in_sync_min >= state.replication > 1:
        complaints.append(
            f"min.insync.replicas is {state.in_sync_min} of {state.replication} replicas: one "
            "broker down stops every append"
        )
    if 0 <= state.retention_ms < _FEWEST_DAYS * _DAY_MS:
        complaints.append(f"keeps messages for less than {_FEWEST_DAYS} days")
    if state.timestamp_type != "LogAppendTime":
        complaints.append(
            "message.timestamp.type is not LogAppendTime: retention trusts the producers' clocks"
        )
    if state.message_bytes_max < MESSAGE_BYTES_MAX:
        complaints.append(
            f"max.message.bytes is {state.message_bytes_max}: batches of up to {MESSAGE_BYTES_MAX} "
            "bytes are sent, and what is larger is refused"
        )
    if "compact" in state.cleanup_policy:
        complaints.append("is compacted: of a run only the last event stays; set it to delete")
    if state.partitions != partitions:
        complaints.append(
            f"has {state.partitions} partitions, {partitions} were asked for; "
            "to change them is a planned operation (docs/kafka.md)"
        )
    return complaints


def open_admin(options: KafkaOptions) -> AdminClient:
    """A client for questions about topics."""
    client: AdminClient = connect(
        import_client("confluent_kafka.admin").AdminClient, configure(options, {}, {})
    )
    return client


def fetch_partitions(admin: AdminClient, topic: str | None = None) -> dict[str, int]:
    """The number of partitions of each topic (or of one; empty when it is missing)."""
    return {name: len(one.partitions) for name, one in _fetch_topics(admin, topic).items()}


def _fetch_topics(admin: AdminClient, topic: str | None) -> dict[str, TopicMetadata]:
    client = import_client()
    try:
        found = admin.list_topics(topic, timeout=_ANSWER_SECONDS)
    except client.KafkaException as error:
        raise StoreUnavailable(f"Kafka cannot be reached: {error.args[0].str()}") from error
    return {name: one for name, one in found.topics.items() if one.error is None}


def _wait_for_topic(admin: AdminClient, topic: str) -> list[PartitionMetadata]:
    """The partitions as one broker tells them: another one may not know a new topic yet."""
    deadline = time.monotonic() + _APPEAR_SECONDS
    while True:
        one = _fetch_topics(admin, topic).get(topic)
        if one is not None and one.partitions:
            return list(one.partitions.values())
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"Kafka has no topic {topic}")
        time.sleep(0.1)


def fetch_state(admin: AdminClient, topic: str) -> TopicState:
    """What a topic is like; waits while it is being made."""
    partitions = _wait_for_topic(admin, topic)
    settings = _wait_for_settings(admin, topic)
    return TopicState(
        partitions=len(partitions),
        replication=min(len(one.replicas) for one in partitions),
        in_sync_min=int(settings["min.insync.replicas"].value),
        retention_ms=int(settings["retention.ms"].value),
        timestamp_type=settings["message.timestamp.type"].value,
        message_bytes_max=int(settings["max.message.bytes"].value),
        cleanup_policy=settings["cleanup.policy"].value,
    )


def is_compacted(options: KafkaOptions) -> bool:
    """Whether the topic drops messages of which it has a later one with the same key."""
    settings = _wait_for_settings(open_admin(options), options.topic)
    return "compact" in settings["cleanup.policy"].value


def _wait_for_settings(admin: AdminClient, topic: str) -> dict[str, Any]:
    module = import_client("confluent_kafka.admin")
    resource = module.ConfigResource(module.ConfigResource.Type.TOPIC, topic)
    deadline = time.monotonic() + _APPEAR_SECONDS
    while True:
        try:
            asked = admin.describe_configs([resource])[resource]
            found: dict[str, Any] = _answer(asked, f"describe {topic}")
            return found
        except StoreUnavailable:  # the broker that was asked does not know the topic yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class Watermarks:
    """The first and the next offset of every partition of the topic."""

    def __init__(self, options: KafkaOptions) -> None:
        self._topic = options.topic
        self._admin = open_admin(options)

    def heads(self) -> dict[int, int]:
        """The offset after the last one of each partition that can be read.

        It is before the first message of a transaction that is still open.
        """
        return self._fetch("latest")

    def starts(self) -> dict[int, int]:
        """The first offset that retention has left, by partition."""
        return self._fetch("earliest")

    def _fetch(self, which: str) -> dict[int, int]:
        deadline = time.monotonic() + _ELECTION_SECONDS
        while True:
            try:
                return self._fetch_once(which)
            except StoreUnavailable:  # a leader has just changed, perhaps
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _fetch_once(self, which: str) -> dict[int, int]:
        client = import_client()
        spec = getattr(import_client("confluent_kafka.admin").OffsetSpec, which)()
        count = fetch_partitions(self._admin, self._topic).get(self._topic, 0)
        if not count:
            raise StoreUnavailable(f"Kafka has no topic {self._topic}")
        asked = {client.TopicPartition(self._topic, number): spec for number in range(count)}
        answers = self._admin.list_offsets(
            asked,
            isolation_level=client.IsolationLevel.READ_COMMITTED,
            request_timeout=_ANSWER_SECONDS,
        )
        what = f"tell the offsets of {self._topic}"
        return {one.partition: _answer(future, what).offset for one, future in answers.items()}


def _wait_for_brokers(admin: AdminClient, replication: int) -> None:
    """Give brokers that start with us time to register; what is still missing Kafka says then."""
    deadline = time.monotonic() + _REGISTER_SECONDS
    while len(admin.list_topics(timeout=_ANSWER_SECONDS).brokers) < replication:
        if time.monotonic() > deadline:
            return
        time.sleep(0.2)


def _create(admin: AdminClient, topics: list[str], partitions: int, replication: int) -> None:
    client = import_client()
    module = import_client("confluent_kafka.admin")
    settings = {
        "min.insync.replicas": "2" if replication >= 3 else "1",
        "retention.ms": str(RETENTION_DAYS * _DAY_MS),
        "message.timestamp.type": "LogAppendTime",
        "cleanup.policy": "delete",
        "unclean.leader.election.enable": "false",
    }
    wanted = [
        module.NewTopic(topic, partitions, replication_factor=replication, config=settings)
        for topic in topics
    ]
    for topic, future in admin.create_topics(wanted, request_timeout=_ANSWER_SECONDS).items():
        try:
            future.result()
        except client.KafkaException as error:
            if error.args[0].code() != client.KafkaError.TOPIC_ALREADY_EXISTS:  # a race is fine
                raise _refused(error, f"create topic {topic}") from error


def _answer(future: Any, what: str) -> Any:
    client = import_client()
    try:
        return future.result(timeout=2 * _ANSWER_SECONDS)
    except TimeoutError as error:
        raise StoreUnavailable(f"Kafka did not answer: {what}") from error
    except client.KafkaException as error:
        raise _refused(error, what) from error


def _refused(error: Any, what: str) -> InvalidInput | StoreUnavailable:
    reason = error.args[0]
    codes = import_client().KafkaError
    if reason.code() in (
        codes.INVALID_REPLICATION_FACTOR,
        codes.INVALID_PARTITIONS,
        codes.INVALID_CONFIG,
        codes.POLICY_VIOLATION,
        codes.TOPIC_EXCEPTION,
        codes.TOPIC_AUTHORIZATION_FAILED,
        codes.CLUSTER_AUTHORIZATION_FAILED,
    ):
        return InvalidInput(f"Kafka refused to {what}: {reason.str()}", code="kafka_refused")
    return StoreUnavailable(f"Kafka did not {what}: {reason.str()}")
