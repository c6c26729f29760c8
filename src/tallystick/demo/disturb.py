"""What real life does to events: twice, out of order, late, broken, full of content.

The shares are stated here; what each did is counted, so that the expectation knows it.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from dataclasses import dataclass, field

import zstandard

from tallystick.clock import HOUR, format_time
from tallystick.demo.traces import CONTENT, Message

DUPLICATE_SHARE = 0.03
OUT_OF_ORDER_SHARE = 0.05
MALFORMED_SHARE = 0.005
CONTENT_SHARE = 0.10
DELIVERED_LATE_SHARE = 0.02
CONFLICTS = 20
EVENTS_PER_REQUEST = 500
_SHUFFLE_DISTANCE = 3000
_FORMS = ("array", "ndjson", "cloudevents", "gzip", "zstd")


@dataclass(frozen=True)
class Piece:
    """One message as sent; `rejected` names the code that it must get."""

    raw: bytes
    rejected: str = ""
    message: Message | None = None


@dataclass(frozen=True)
class DemoRequest:
    """One POST /v1/events."""

    body: bytes
    content_type: str
    content_encoding: str
    good: int
    rejected: Counter[str]


@dataclass
class Disturbance:
    """What was sent besides the events themselves."""

    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    with_content: int = 0
    delivered_late: int = 0


@dataclass(frozen=True)
class Delivery:
    """Requests in the order in which they are sent; `late` follows when runs are charged."""

    ordinary: list[DemoRequest]
    late: list[DemoRequest]
    conflicts: DemoRequest

    @property
    def requests(self) -> list[DemoRequest]:
        """All of them in order; the conflicts are last."""
        return [*self.ordinary, *self.late, self.conflicts]


def disturb(messages: list[Message], now: int, seed: int) -> tuple[Delivery, Disturbance]:
    """Return what to send, and what was done to it."""
    rng = random.Random(seed + 1)
    record = Disturbance()
    pieces = [_piece(message, rng, record) for message in messages]
    is_late = [rng.random() < DELIVERED_LATE_SHARE for _ in pieces]
    late = [piece for piece, waits in zip(pieces, is_late, strict=True) if waits]
    record.delivered_late = len(late)
    pieces = [piece for piece, waits in zip(pieces, is_late, strict=True) if not waits]
    stream = _interleave(pieces, rng)
    stream = _insert(stream, _duplicates(pieces, rng, record), rng)
    stream = _insert(stream, _malformed(messages, now, rng, record), rng)
    conflicts = _conflicts(messages, rng, record)
    return Delivery(_requests(stream), _requests(late), _request(conflicts, "array")), record


def _requests(stream: list[Piece]) -> list[DemoRequest]:
    return [
        _request(stream[start : start + EVENTS_PER_REQUEST], _FORMS[number % len(_FORMS)])
        for number, start in enumerate(range(0, len(stream), EVENTS_PER_REQUEST))
    ]


def _piece(message: Message, rng: random.Random, record: Disturbance) -> Piece:
    sent = {name: value for name, value in message.items() if name != CONTENT}
    if CONTENT in message and rng.random() < CONTENT_SHARE:
        record.with_content += 1
        sent |= message[CONTENT]
        sent["attrs"] = {"note": json.dumps(message[CONTENT], ensure_ascii=False)}
    return Piece(_encode(sent), message=sent)


def _encode(message: Message) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode()


def _interleave(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """Mix the sources, and move a share of events far from their place."""
    places = []
    for place, _ in enumerate(pieces):
        moved = rng.random() < OUT_OF_ORDER_SHARE
        distance = _SHUFFLE_DISTANCE if moved else 0
        places.append(place + rng.uniform(-distance, distance))
    return [pieces[index] for index in sorted(range(len(pieces)), key=places.__getitem__)]


def _insert(stream: list[Piece], extra: list[Piece], rng: random.Random) -> list[Piece]:
    places = [(float(place), piece) for place, piece in enumerate(stream)]
    places += [(rng.uniform(0, len(stream)), piece) for piece in extra]
    return [piece for _, piece in sorted(places, key=lambda item: item[0])]


def _duplicates(pieces: list[Piece], rng: random.Random, record: Disturbance) -> list[Piece]:
    copies = [piece for piece in pieces if rng.random() < DUPLICATE_SHARE]
    record.duplicates += len(copies)
    return copies


def _malformed(
    messages: list[Message], now: int, rng: random.Random, record: Disturbance
) -> list[Piece]:
    broken = []
    for number, message in enumerate(messages):
        if "event_id" in message and rng.random() < MALFORMED_SHARE:
            piece = _break(message, number, now, rng)
            record.rejected[piece.rejected] += 1
            broken.append(piece)
    return broken


def _break(message: Message, number: int, now: int, rng: random.Random) -> Piece:
    base = {name: value for name, value in message.items() if name != CONTENT}
    base["event_id"] = f"broken-{number}"
    kind = rng.randrange(8)
    if kind == 0:
        return Piece(_encode({**base, "tokens_input": "many"}), "wrong_type")
    if kind == 1:
        return Piece(_encode({**base, "event_id": None}), "empty_id")
    if kind == 2:
        return Piece(_encode({**base, "event_time": "2026-01-31T12:00:00"}), "naive_time")
    if kind == 3:
        return Piece(_encode({**base, "tokens_output": -number - 1}), "negative_number")
    if kind == 4:
        future = format_time(now + 5 * HOUR)
        return Piece(_encode({**base, "event_time": future}), "time_in_future")
    if kind == 5:
        return Piece(_encode(base)[:-1] + b', "latency_ms": NaN}', "not_finite")
    if kind == 6:
        return Piece(b'{"event_id": "broken-%d", nonsense}' % number, "invalid_json")
    del base["tenant_id"]
    return Piece(_encode(base), "missing_field")


def _conflicts(messages: list[Message], rng: random.Random, record: Disturbance) -> list[Piece]:
    usage = [message for message in messages if message.get("event_type") == "token_usage"]
    record.rejected["event_id_conflict"] += CONFLICTS
    chosen = rng.sample(usage, CONFLICTS)
    return [
        Piece(
            _encode({name: value for name, value in message.items() if name != CONTENT}
                    | {"tokens_output": 1, "completion_tokens": 1, "latency_ms": 1}),
            "event_id_conflict",
        )
        for message in chosen
    ]  # fmt: skip


def _request(pieces: list[Piece], form: str) -> DemoRequest:
    content_type, encoding = "application/json", ""
    if form == "cloudevents":
        content_type = "application/cloudevents-batch+json"
        body = b"[" + b",".join(map(_as_cloud_event, pieces)) + b"]"
    elif form in ("ndjson", "zstd"):
        content_type = "application/x-ndjson"
        body = b"\n".join(piece.raw for piece in pieces)
    else:
        body = b"[" + b",".join(piece.raw for piece in pieces) + b"]"
    if form == "gzip":
        encoding, body = "gzip", gzip.compress(body, 1, mtime=0)
    elif form == "zstd":
        encoding, body = "zstd", zstandard.ZstdCompressor(level=1).compress(body)
    rejected = Counter(piece.rejected for piece in pieces if piece.rejected)
    good = sum(not piece.rejected for piece in pieces)
    return DemoRequest(body, content_type, encoding, good, rejected)


def _as_cloud_event(piece: Piece) -> bytes:
    message = piece.message
    if message is None or "event_id" not in message:
        return piece.raw
    envelope = {
        "specversion": "1.0",
        "id": message["event_id"],
        "source": message.get("source", "demo"),
        "type": message["event_type"],
        "time": message["event_time"],
        "data": message,
    }
    return _encode(envelope)
