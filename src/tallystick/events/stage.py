"""The stage behind Kafka: messages of a partition become judged events, the same way each time.

Messages of our doors are canonical already (marked and sealed); those of other producers are
JSON, read, checked and redacted here. What cannot become an event is set aside as one of type
`data.import.error`. Then the index says of each delivery whether it is the original: the same
messages always give the same events and verdicts, so a crash only makes them again.
"""

from __future__ import annotations

import hmac
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from itertools import compress
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tallystick.errors import InvariantBroken
from tallystick.events.appending import CANONICAL, MAC_BYTES
from tallystick.events.batch import EventBatch, identities_of
from tallystick.events.broken import Origin, broken_event, broken_message
from tallystick.events.dedup import DedupIndex
from tallystick.events.framing import decode_alone
from tallystick.events.model import EVENT_FIELDS, Event, EventType
from tallystick.events.plain import split_plain
from tallystick.events.poison import BrokenShare
from tallystick.events.redaction import Redactor
from tallystick.events.rules import Refused, make_event
from tallystick.plumbing.log.columns import (
    Columns,
    columns_of_rows,
    concat_filled,
    expand,
    rows_of_columns,
)
from tallystick.plumbing.log.horizons import ClosedBefore, never_closed
from tallystick.plumbing.log.kafka import KafkaMessage
from tallystick.plumbing.log.model import Chunk, Verdict

Row = list[Any]
_HEAD = len(CANONICAL) + MAC_BYTES
_ID = EVENT_FIELDS.index("event_id")
_TYPE = EVENT_FIELDS.index("event_type")
_RECEIVED = EVENT_FIELDS.index("received_at")
_GAP_MAX = 10_000
"""Offsets in a row without a message, beyond which the topic is asked whether it is compacted."""

_KEY_BYTES_MAX = 1024
"""Of a broken message's key: one with a key as large as a message must not stop the follower."""

_OFFSETS_MAX = 200_000
"""Offsets of one chunk: an aborted transaction may leave out any number of them."""

_PIECE_MESSAGES = 500
"""Rows made and turned into columns at once: as many as the processor keeps in its cache."""

_fields_of = attrgetter(*EVENT_FIELDS)
_rows = msgspec.msgpack.Decoder(list[list[Any]])
_json = msgspec.json.Encoder()


class Staged(NamedTuple):
    """A chunk, and what the topic of broken messages gets: (key, message)."""

    chunk: Chunk
    broken: list[tuple[bytes, bytes]]


class Stage:
    """Judges one partition of the topic; owns the partition's index while it is assigned."""

    def __init__(
        self,
        topic: str,
        partition: int,
        position: int,
        epoch: int,
        *,
        index: DedupIndex,
        redactor: Redactor,
        key: bytes,
        is_compacted: Callable[[], bool],
        closed_before: ClosedBefore = never_closed,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self.position = position
        self._end = position
        self._waiting: list[KafkaMessage] = []
        self._is_compacted = is_compacted
        self._epoch = epoch
        self.index = index
        self._redactor = redactor
        self._closed_before = closed_before
        self._sealing = blake2b(key=key, digest_size=MAC_BYTES)
        self._share = BrokenShare(f"partition {partition} of {topic}")

    @property
    def has_more(self) -> bool:
        """Whether something waits that the last `take` left for the next."""
        return self.position < self._end

    def take(self, messages: Sequence[KafkaMessage], end: int = 0) -> Staged:
        """Make the events of the next messages; raise TooManyBroken when most are broken.

        `end`: how far the partition was read, if that is behind the last message. Offsets in
        between that hold no message are counted too: markers of producers' transactions, and what
        was aborted. Where those are many, the rest waits for the next call.
        """
        self._waiting += messages
        last = self._waiting[-1].offset if self._waiting else -1
        self._end = max(self._end, end, last + 1)
        stop = min(self._end, self.position + _OFFSETS_MAX)
        count = bisect_left(self._waiting, stop, key=attrgetter("offset"))
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        offsets = [message.offset for message in taken]
        self._require_no_hole(offsets, stop)
        columns = concat_filled([self._columns(piece) for piece in _pieces(taken)]) if taken else []
        broken = _broken_places(columns[_TYPE], count) if taken else []
        self._share.note(count, len(broken))
        identities = identities_of(columns, count) if taken else []
        verdicts = self.index.judge(identities, offsets)
        self.index.commit(stop)
        told = [
            (taken[place].key[:_KEY_BYTES_MAX], _told(columns, place))
            for place in broken
            if verdicts[place] == Verdict.ORIGINAL
        ]
        if stop - self.position > count:
            skipped = sorted({*range(self.position, stop)}.difference(offsets))
            offsets, columns, verdicts = _with_skipped(skipped, offsets, columns, verdicts)
        self.position = stop
        return Staged(Chunk(self._partition, self._epoch, offsets, columns, verdicts, stop), told)

    def _require_no_hole(self, offsets: Sequence[int], stop: int) -> None:
        """Raise InvariantBroken where compaction may have taken messages."""
        if stop - self.position - len(offsets) <= _GAP_MAX:
            return
        missing = int(np.diff(np.array([self.position - 1, *offsets, stop])).max()) - 1
        if missing > _GAP_MAX and self._is_compacted():
            raise InvariantBroken(
                f"INV-10: {missing} messages in a row are missing in "
                f"{self._topic}/{self._partition} near {self.position}; "
                "the topic may not be compacted"
            )

    def _columns(self, messages: Sequence[KafkaMessage]) -> tuple[int, Columns]:
        is_ours = [self._is_sealed(message.value) for message in messages]
        if all(is_ours):
            rows = _unpack([message.value for message in messages])
            return len(rows), columns_of_rows(_even(rows))
        ours = iter(_unpack([one.value for one in compress(messages, is_ours)]))
        others = [one for one, own in zip(messages, is_ours, strict=True) if not own]
        foreign = iter(self._read_foreign(others))
        rows = [next(ours) if own else next(foreign) for own in is_ours]
        return len(rows), columns_of_rows(_even(rows))

    def _is_sealed(self, value: bytes) -> bool:
        if not value.startswith(CANONICAL):
            return False
        seal = self._sealing.copy()  # half the cost of taking the key in anew
        seal.update(value[_HEAD:])
        return hmac.compare_digest(seal.digest(), value[len(CANONICAL) : _HEAD])

    def _read_foreign(self, messages: Sequence[KafkaMessage]) -> list[Row]:
        """Plain messages together, the others one by one; each by its own time of receipt."""
        rows: dict[int, Row] = {}
        lines = [
            place for place, message in enumerate(messages) if _is_one_line(message.value.strip())
        ]
        times = [message.timestamp for message in messages]
        split = split_plain(
            b"\n".join(messages[place].value.strip() for place in lines),
            is_lines=True,
            received_at=min(times),
            redactor=self._redactor,
            closed_before=self._closed_before(max(times)),
        )
        if split is not None and split.batch.size:
            made = rows_of_columns(split.batch.columns, split.batch.size)
            for index, row in zip(split.indexes, made, strict=True):
                place = lines[index]
                row[_RECEIVED] = messages[place].timestamp
                rows[place] = row
        return [
            rows.get(place) or self._read_alone(message) for place, message in enumerate(messages)
        ]

    def _read_alone(self, message: KafkaMessage) -> Row:
        origin = Origin(self._topic, self._partition, message.offset)
        decoded = decode_alone(message.value)
        try:
            if decoded.refused is not None:
                raise decoded.refused
            event = make_event(
                decoded.decoded,
                received_at=message.timestamp,
                redactor=self._redactor,
                closed_before=self._closed_before(message.timestamp),
            )
        except Refused as refused:
            event = broken_event(
                message.value,
                decoded.decoded,
                refused,
                received_at=message.timestamp,
                redactor=self._redactor,
                origin=origin,
            )
        return list(_fields_of(event))


def _pieces(messages: Sequence[KafkaMessage]) -> Iterator[Sequence[KafkaMessage]]:
    for start in range(0, len(messages), _PIECE_MESSAGES):
        yield messages[start : start + _PIECE_MESSAGES]


def _broken_places(kinds: list[Any], count: int) -> list[int]:
    if EventType.IMPORT_ERROR not in kinds:
        return []
    return [
        place for place, kind in enumerate(expand(kinds, count)) if kind == EventType.IMPORT_ERROR
    ]


def _told(columns: Columns, place: int) -> bytes:
    """What the topic of broken messages gets of one of them."""
    row = [column[place if len(column) > 1 else 0] for column in columns]
    return _json.encode(broken_message(msgspec.convert(row, Event)))


def _is_one_line(text: bytes) -> bool:
    return bool(text) and b"\n" not in text and b"\r" not in text


def _unpack(values: Sequence[bytes]) -> list[Row]:
    """Decode many messages in one call: their arrays, put into one array."""
    head = b"\xdd" + len(values).to_bytes(4, "big")
    return _rows.decode(head + b"".join(value[_HEAD:] for value in values))


def _even(rows: list[Row]) -> list[Row]:
    """Rows of older doors have fewer fields; what they did not know is None."""
    width = max(map(len, rows))
    return [row if len(row) == width else row + [None] * (width - len(row)) for row in rows]


def _with_skipped(
    skipped: Sequence[int], offsets: Sequence[int], columns: Columns, verdicts: bytes
) -> tuple[list[int], Columns, bytes]:
    """Put offsets without a message between the others: every offset is accounted for."""
    nothing = Event(
        event_id="",
        event_type="",
        occurred_at=0,
        received_at=0,
        tenant_id="",
        content_digest=bytes(16),  # a column of facts takes no other length
    )
    markers = [[value] for value in _fields_of(nothing)]
    markers[_ID] = [f"control:{offset}" for offset in skipped]
    parts = [(len(offsets), columns)] if offsets else []
    both = concat_filled([*parts, (len(skipped), markers)])
    places = [*offsets, *skipped]
    order = sorted(range(len(places)), key=places.__getitem__)
    judged = verdicts + bytes([Verdict.CONTROL]) * len(skipped)
    return (
        [places[at] for at in order],
        EventBatch(len(places), both).reorder(order).columns,
        bytes(judged[at] for at in order),
    )
