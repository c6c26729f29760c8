"""One reader of a consumer group: messages by partition, from positions that the caller keeps.

Positions live with the results, in the store that the results are in; so a partition that
arrives is read from where `on_assigned` says, never from an offset committed to Kafka, and
never from wherever Kafka would reset to: a position that retention has deleted is an error
that comes back on every read until someone decides (seek), because it is a loss.

The rebalance protocol is the classic one, cooperative-sticky, and not KIP-848 (`consumer`):
a static member that was killed and starts again within its session timeout gets its
partitions back at once under the classic protocol, which fences the old member, and nobody
else notices. Under KIP-848 the broker refuses the newcomer (UNRELEASED_INSTANCE_ID) until
the session of the dead one has run out, 45 s by default and set on the broker, not here.
Cooperative-sticky means that a partition that stays is read on during a rebalance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from tallystick.errors import InvalidInput, PositionLost, ReaderDisplaced, StoreUnavailable
from tallystick.plumbing.log.kafka.options import (
    KafkaOptions,
    configure,
    connect,
    import_client,
    log,
)
from tallystick.plumbing.log.kafka.topics import Watermarks

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

_DEFAULTS = {
    "session.timeout.ms": 30_000,  # what a killed process that stays away costs in freshness
    "max.poll.interval.ms": 300_000,
    "fetch.wait.max.ms": 100,
    "fetch.error.backoff.ms": 100,
    "fetch.queue.backoff.ms": 20,  # the default second left the reader idle: a third of the speed
    "queued.min.messages": 100_000,
    "queued.max.messages.kbytes": 128 * 1024,
}
_WATERMARK_SECONDS = 10
_TIME_MAX = 4_102_444_800_000_000
"""Micros at 2100-01-01: a producer's own time stamp may be anything, and no store takes all."""


class KafkaMessage(msgspec.Struct, frozen=True, order=True, gc=False):
    """One message; `timestamp` is the record's time in micros."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes


class KafkaReader:
    """Not thread-safe: all calls, and the callbacks, are of one thread.

    `on_assigned` gets the partitions that arrive and returns the offset to start each from;
    `on_revoked` gets those that leave (or that were lost to another reader already). Both are
    called inside `read` (`on_revoked` also in `close`), when all that earlier reads returned
    is the caller's past. If either raises, `read` raises that, now and ever after: close the
    reader and make a new one; under the same `instance_id` it gets the same partitions.
    """

    def __init__(
        self,
        options: KafkaOptions,
        *,
        group: str,
        instance_id: str,
        on_assigned: Callable[[Sequence[int]], Mapping[int, int]],
        on_revoked: Callable[[Sequence[int]], None],
    ) -> None:
        """`instance_id` is unique in the group and the same after a restart."""
        fixed = {
            "group.id": group,
            "group.instance.id": instance_id,
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,  # tells of offsets at the end that hold no message
        }
        self._client = import_client()
        self._topic = options.topic
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._positions: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._disturbed: set[int] = set()
        self._lost: dict[int, PositionLost] = {}
        self._failure: Exception | None = None
        self._watermarks = Watermarks(options)
        self._consumer: Consumer = connect(
            self._client.Consumer, configure(options, _DEFAULTS, fixed)
        )
        self._consumer.subscribe(
            [self._topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke
        )

    def read(self, messages_max: int, timeout_seconds: float) -> dict[int, list[KafkaMessage]]:
        """Return what is there, by partition, offsets ascending; wait when nothing is.

        Raises PositionLost, ReaderDisplaced (another process took the instance id) or
        StoreUnavailable; messages that were under way then come again with the next read.
        """
        self._raise_what_stands()
        try:
            messages = self._consumer.consume(1, timeout_seconds)
            if messages and messages_max > 1:  # all that has come, without waiting to fill up
                messages += self._consumer.consume(messages_max - 1, 0)
        except (self._client.KafkaException, RuntimeError) as error:
            raise StoreUnavailable(f"Kafka cannot be read: {error}") from error
        found, errors = self._sort(messages)
        try:
            for message in errors:
                self._judge(message)
            self._raise_what_stands()
        except Exception:
            self._rewind(found)
            raise
        self._drop_disturbed(found)
        for partition, batch in found.items():
            self._positions[partition] = batch[-1].offset + 1
        return found

    def ends(self) -> dict[int, int]:
        """Partitions that end behind their last message, each with its end; told once.

        What is between holds no message: markers of transactions, and what was aborted.
        """
        behind = {
            partition: end
            for partition, end in self._ends.items()
            if end > self._positions.get(partition, end)
        }
        self._positions.update(behind)
        self._ends.clear()
        return behind

    def seek(self, positions: Mapping[int, int]) -> None:
        """Read on from these offsets; only of partitions that are assigned."""
        for partition, offset in positions.items():
            if partition not in self._positions:
                raise InvalidInput(f"partition {partition} is not assigned to this reader")
            # Not the client's seek: that is refused before the first fetch and after an error.
            self._consumer.incremental_unassign([self._at(partition)])
            self._consumer.incremental_assign([self._at(partition, offset)])
            self._positions[partition] = offset
            self._lost.pop(partition, None)
            self._ends.pop(partition, None)

    def heads(self) -> dict[int, int]:
        """What every partition of the topic holds up to, also those of others."""
        return self._watermarks.heads()

    def starts(self) -> dict[int, int]:
        """The first offset that retention has left, of every partition of the topic."""
        return self._watermarks.starts()

    def note_progress(self, positions: Mapping[int, int]) -> None:
        """Tell Kafka where we are, for lag monitors alone: it is never read back.

        Not waited for; a failure is of no consequence.
        """
        offsets = [self._at(partition, offset) for partition, offset in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except self._client.KafkaException as error:
            log.info("progress was not noted: %s", error)

    def close(self) -> None:
        """Stop; the partitions stay reserved for this instance until its session ends."""
        self._consumer.close()

    def _assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [one.partition for one in partitions]
        try:
            wanted = self._on_assigned(numbers) if numbers else {}
            positions = {number: wanted[number] for number in numbers}
        except Exception as error:
            self._failure = error  # an exception may not cross the client's C code
            return
        self._consumer.incremental_assign([self._at(*one) for one in positions.items()])
        self._positions.update(positions)

    def _revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._let_go([one.partition for one in partitions if one.partition in self._positions])
        self._consumer.incremental_unassign(partitions)

    def _let_go(self, numbers: list[int]) -> None:
        for number in numbers:
            del self._positions[number]
            self._lost.pop(number, None)
            self._ends.pop(number, None)
        self._disturbed.update(numbers)
        try:
            if numbers:
                self._on_revoked(numbers)
        except Exception as error:
            self._failure = error

    def _sort(self, messages: list[Message]) -> tuple[dict[int, list[KafkaMessage]], list[Message]]:
        found: defaultdict[int, list[KafkaMessage]] = defaultdict(list)
        errors = []
        for message in messages:
            error = message.error()
            if error is not None and error.code() == self._client.KafkaError._PARTITION_EOF:
                self._ends[message.partition()] = message.offset()  # type: ignore[index, assignment]
                continue
            if error is not None:
                errors.append(message)
                continue
            found[message.partition()].append(  # type: ignore[index]
                KafkaMessage(
                    message.offset(),  # type: ignore[arg-type]
                    min(max(message.timestamp()[1], 0) * 1000, _TIME_MAX),
                    message.key() or b"",
                    message.value() or b"",
                )
            )
        return dict(found), errors

    def _drop_disturbed(self, found: dict[int, list[KafkaMessage]]) -> None:
        """Drop what came of partitions that left during this read, also if they came back."""
        for partition in self._disturbed & (found.keys() | self._ends.keys()):
            found.pop(partition, None)
            self._ends.pop(partition, None)
            if partition in self._positions:
                self.seek({partition: self._positions[partition]})
        self._disturbed.clear()

    def _rewind(self, found: Mapping[int, object]) -> None:
        """Have the messages that this read will not return come again."""
        for partition in found.keys() & self._positions.keys() - self._lost.keys():
            self.seek({partition: self._positions[partition]})

    def _judge(self, message: Message) -> None:
        error = message.error()
        assert error is not None
        codes = self._client.KafkaError
        partition = message.partition()
        if error.code() in (codes._AUTO_OFFSET_RESET, codes._LOG_TRUNCATION):
            if partition in self._positions:
                self._lost[partition] = self._position_lost(partition, error)
        elif error.code() == codes._MAX_POLL_EXCEEDED:
            log.warning("the group took our partitions: %s", error.str())
        elif error.fatal() or error.code() in (codes._FATAL, codes.FENCED_INSTANCE_ID):
            self._failure = ReaderDisplaced(f"another process reads as this one: {error.str()}")
            self._let_go(list(self._positions))
        elif not error.retriable():
            raise StoreUnavailable(f"Kafka cannot be read: {error.str()}")

    def _position_lost(self, partition: int, error: KafkaError) -> PositionLost:
        position = self._positions[partition]
        try:
            start, end = self._consumer.get_watermark_offsets(
                self._at(partition), timeout=_WATERMARK_SECONDS
            )
        except self._client.KafkaException:
            return PositionLost(f"partition {partition}, position {position}: {error.str()}")
        if position < start:
            what = f"retention deleted {start - position} messages that were not yet read"
        else:
            what = "the log ends before it: it was cut off or made anew"
        return PositionLost(
            f"partition {partition} of {self._topic} has no position {position} "
            f"(it holds [{start}, {end})): {what}"
        )

    def _raise_what_stands(self) -> None:
        if self._failure is not None:
            raise self._failure
        for error in self._lost.values():
            raise error

    def _at(self, partition: int, offset: int = -1001) -> TopicPartition:
        made: TopicPartition = self._client.TopicPartition(self._topic, partition, offset)
        return made
