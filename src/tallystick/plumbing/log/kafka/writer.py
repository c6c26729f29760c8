"""Append messages to Kafka; return when all in-sync replicas have them.

One idempotent producer serves all threads: retries inside it neither double nor reorder. A
failed append may still have landed in part; the caller sends it again and deduplication
settles it. Keys go to partitions by murmur2, as the Java client does it, so that one run is
in one partition whoever wrote it.

A queue that is full refuses a whole append at once (SlowDown) and takes none of it. A producer
that librdkafka declares dead (a fatal error) is replaced; its appends fail and are sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tallystick.errors import BodyTooLarge, SlowDown, StoreUnavailable
from tallystick.plumbing.log.kafka.options import (
    KafkaOptions,
    configure,
    connect,
    import_client,
    log,
)
from tallystick.plumbing.log.kafka.topics import MESSAGE_BYTES_MAX

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

QUEUE_MESSAGES_MAX = 100_000
QUEUE_BYTES_MAX = 128 * 1024 * 1024
_MESSAGE_OVERHEAD_BYTES = 100

_DEFAULTS = {
    "compression.type": "lz4",  # half the CPU of zstd here, where CPU is what is short
    "linger.ms": 5,  # long enough for batches at high rates, unnoticed at low ones
    "batch.size": 900_000,  # below the broker's limit of 1 MiB a batch
    "request.timeout.ms": 10_000,
    "message.timeout.ms": 30_000,  # longer than the loss of a broker takes to be noticed
    "statistics.interval.ms": 0,
}
_FIXED = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    # Twice our own bound: an append that was let in must not be refused half way.
    "queue.buffering.max.messages": 2 * QUEUE_MESSAGES_MAX,
    "queue.buffering.max.kbytes": 2 * QUEUE_BYTES_MAX // 1024,
}


class KafkaWriter:
    """Thread-safe; `close` it to end its thread."""

    def __init__(self, options: KafkaOptions) -> None:
        self._configuration = configure(options, _DEFAULTS, _FIXED)
        self._message_bytes_max = int(
            self._configuration.get("message.max.bytes", MESSAGE_BYTES_MAX)
        )
        self._lock = threading.Lock()
        self._messages_queued = 0
        self._bytes_queued = 0
        self._closed = False
        self._lane = _Lane(self._configuration)

    def append(self, topic: str, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Append (key, value) pairs in order; return once every one was acknowledged.

        Raises SlowDown (nothing was taken), BodyTooLarge (nothing was taken) or
        StoreUnavailable (at least one was not acknowledged; others may have landed).
        """
        if not messages:
            return
        size = self._measure(messages)
        self._enter(len(messages), size)
        try:
            lane = self._lane
            try:
                lane.append(topic, messages)
            finally:
                if lane.is_dead:
                    self._replace(lane)
        finally:
            with self._lock:
                self._messages_queued -= len(messages)
                self._bytes_queued -= size

    def close(self) -> None:
        """Wait for what is under way (bounded by its timeout) and end."""
        with self._lock:
            self._closed = True
        self._lane.close()

    def _measure(self, messages: Sequence[tuple[bytes, bytes]]) -> int:
        total = 0
        largest = 0
        for key, value in messages:
            size = len(key) + len(value) + _MESSAGE_OVERHEAD_BYTES
            total += size
            largest = max(largest, size)
        if largest > self._message_bytes_max:
            raise BodyTooLarge(
                f"a message of {largest} bytes is over the log's {self._message_bytes_max}"
            )
        return total

    def _enter(self, count: int, size: int) -> None:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the Kafka writer is closed")
            is_full = (
                self._messages_queued + count > QUEUE_MESSAGES_MAX
                or self._bytes_queued + size > QUEUE_BYTES_MAX
            )
            if is_full and self._messages_queued:  # alone, any append may try
                raise SlowDown("the queue to Kafka is full")
            self._messages_queued += count
            self._bytes_queued += size

    def _replace(self, dead: _Lane) -> None:
        with self._lock:
            if self._lane is not dead or self._closed:
                return
            self._lane = _Lane(self._configuration)
        log.warning("the Kafka producer met a fatal error and was replaced: %s", dead.died_of)
        dead.close()


class _Lane:
    """A producer and the thread that hears of its deliveries."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self._client = import_client()
        self._producer: Producer = connect(self._client.Producer, configuration)
        self.died_of = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="kafka-writer", daemon=True)
        self._thread.start()

    @property
    def is_dead(self) -> bool:
        return bool(self.died_of)

    def append(self, topic: str, messages: Sequence[tuple[bytes, bytes]]) -> None:
        pending = _Pending(len(messages))
        refused = self._produce(topic, messages, pending)
        pending.done.wait()  # each message has its time limit in the producer
        error = refused or pending.error
        if error is None:
            return
        if error.fatal() or error.code() == self._client.KafkaError._FATAL:
            self.died_of = error.str()
        raise self._failure(error, topic)

    def close(self) -> None:
        """End once the queue is empty; what is in it ends within the message timeout."""
        while self._producer.flush(1.0):
            pass
        self._ending.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _produce(
        self, topic: str, messages: Sequence[tuple[bytes, bytes]], pending: _Pending
    ) -> KafkaError | None:
        produce = self._producer.produce
        heard = pending.heard
        for number, (key, value) in enumerate(messages):
            try:
                while True:
                    try:
                        produce(topic, value, key, on_delivery=heard)
                        break
                    except BufferError:  # only by an append larger than the whole queue
                        self._ending.wait(0.01)
            except self._client.KafkaException as error:
                pending.expect(number)
                reason: KafkaError = error.args[0]
                return reason
        return None

    def _listen(self) -> None:
        poll = self._producer.poll
        while not self._ending.is_set():
            poll(0.1)

    def _failure(self, error: KafkaError, topic: str) -> StoreUnavailable:
        """Whatever Kafka said, the events are not at fault: who sent them is to keep them.

        Nobody who sends events can give us the right to write, or the topic a larger limit.
        """
        return StoreUnavailable(f"Kafka did not take it into {topic}: {error.str()}")


class _Pending:
    """One append under way: counts its deliveries.

    Only the listening thread counts and only the appending one changes what is expected;
    each looks after its own write, so one of them sees the end.
    """

    def __init__(self, expected: int) -> None:
        self.done = threading.Event()
        self.error: KafkaError | None = None
        self._expected = expected
        self._heard = 0

    def heard(self, error: KafkaError | None, _: Message) -> None:
        if error is not None and (self.error is None or error.fatal()):
            self.error = error
        self._heard += 1
        if self._heard >= self._expected:
            self.done.set()

    def expect(self, count: int) -> None:
        """Not all could be handed over: wait for the first `count` only."""
        self._expected = count
        if self._heard >= count:
            self.done.set()
