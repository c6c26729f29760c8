"""How a door makes a batch of events durable: in the log in PostgreSQL, or in Kafka.

In PostgreSQL deduplication runs before the append, over all that the log holds until then: the
receipt tells duplicates. In Kafka it runs behind the log (`tallystick.events.stage`), because no
single process sees all appends: the receipt says accepted once all in-sync replicas have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

import msgspec

from tallystick.errors import InvariantBroken
from tallystick.events.batch import EventBatch, Identity
from tallystick.events.dedup import DedupIndex
from tallystick.plumbing.log import PostgresLog
from tallystick.plumbing.log.columns import rows_of_columns
from tallystick.plumbing.log.kafka import KafkaWriter

CANONICAL = b"\xc1ts1"
"""How a message begins that a door of ours wrote: no JSON and no msgpack begins so."""

MAC_BYTES = 16
_CATCH_UP_BATCHES = 64
_encoder = msgspec.msgpack.Encoder()


class Appender(Protocol):
    """Makes batches durable; calls come from one thread."""

    def open(self) -> None:
        """Get ready."""
        ...

    def append(self, batch: EventBatch, identities: Sequence[Identity], received_at: int) -> bytes:
        """Store a batch durably; return one verdict an event.

        Raises StoreUnavailable or SlowDown; then the batch may stand all the same, and a
        resend of it is a duplicate.
        """
        ...


class JudgingAppender:
    """Appends to the log in PostgreSQL; owns the index of its partition."""

    def __init__(self, log: PostgresLog, index: DedupIndex) -> None:
        self._log = log
        self._index = index

    def open(self) -> None:
        """Bring the index up to the log, or back to it."""
        head = self._log.head()
        self._index.keep_within(head)
        self._catch_up(head)

    def append(self, batch: EventBatch, identities: Sequence[Identity], received_at: int) -> bytes:
        """Judge and append in one transaction."""
        judged = b""

        def judge(offset_start: int) -> bytes:
            nonlocal judged
            self._catch_up(offset_start)
            offsets = range(offset_start, offset_start + batch.size)
            judged = self._index.judge(identities, offsets)
            return judged

        offset_start = self._log.append(
            batch.size, batch.columns, received_at, judge, likely_start=self._index.position
        )
        self._index.commit(offset_start + batch.size)
        return judged

    def _catch_up(self, head: int) -> None:
        if self._index.position > head:
            raise InvariantBroken(
                f"the log ends at {head}, before {self._index.position}: it was set back while "
                "this process ran; stop every process and start again"
            )
        while self._index.position < head:
            self._index.catch_up(
                self._log.read(self._index.position, batches_max=_CATCH_UP_BATCHES)
            )


class KafkaAppender:
    """Appends to the topic, one message an event, by the run's key."""

    def __init__(self, writer: KafkaWriter, topic: str, key: bytes) -> None:
        self._writer = writer
        self._topic = topic
        self._key = key

    def open(self) -> None:
        """Nothing is needed."""

    def append(self, batch: EventBatch, identities: Sequence[Identity], received_at: int) -> bytes:
        """Write every event; all are original as far as can be told here."""
        keys = (
            (run_id or event_id).encode()
            for run_id, event_id in zip(
                batch.values("run_id"), batch.values("event_id"), strict=True
            )
        )
        rows = rows_of_columns(batch.columns, batch.size)
        values = (sign(_encoder.encode(row), self._key) for row in rows)
        self._writer.append(self._topic, list(zip(keys, values, strict=True)))
        return bytes(batch.size)


def seal_key(secret: str) -> bytes:
    """The key that seals messages, from the secret that all processes share."""
    return blake2b(secret.encode(), person=b"ts seal", digest_size=32).digest()


def sign(content: bytes, key: bytes) -> bytes:
    """A message of ours: marked, and sealed so that nobody else can pass redaction by."""
    return CANONICAL + blake2b(content, key=key, digest_size=MAC_BYTES).digest() + content
