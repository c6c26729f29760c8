"""Adapters: every accepted form of a request body becomes canonical events.

One object, an array, NDJSON, CloudEvents 1.0 (structured, batch, binary by `ce-` headers)
and the flat cost record; gzip or zstd encoded too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from tallystick.bounds import EVENTS_PER_REQUEST_MAX
from tallystick.errors import BodyTooLarge
from tallystick.events.broken import Origin, broken_event, short_text
from tallystick.events.framing import Message, decompress, split_messages
from tallystick.events.model import Event
from tallystick.events.redaction import Redactor
from tallystick.events.rules import Refused, make_event

_encoder = msgspec.json.Encoder(order="deterministic")


class Rejection(msgspec.Struct):
    """Why one message of a request was not accepted."""

    index: int
    event_id: str | None
    code: str
    reason: str


class ParsedBody(msgspec.Struct):
    """What a request body held; `indexes[i]` is the place of `events[i]` in the request."""

    events: list[Event]
    indexes: list[int]
    rejections: list[Rejection]
    broken: list[Event]
    """One `data.import.error` for each rejection."""


def parse_body(
    body: bytes,
    *,
    content_type: str,
    content_encoding: str,
    headers: Mapping[str, str],
    received_at: int,
    redactor: Redactor,
    origin: Origin | None = None,
) -> ParsedBody:
    """Parse, validate and redact a request body, or one message read from `origin`.

    One bad message never blocks its neighbours. Raises BodyTooLarge, BodyUnreadable or
    UnsupportedForm when the body as a whole cannot be used.
    """
    messages = split_messages(decompress(body, content_encoding), content_type)
    if len(messages) > EVENTS_PER_REQUEST_MAX:
        raise BodyTooLarge(
            f"a request may hold at most {EVENTS_PER_REQUEST_MAX} events", code="too_many_events"
        )
    if len(messages) == 1 and "ce-specversion" in headers:
        messages = [_from_binary_cloud_event(messages[0], headers)]
    parsed = ParsedBody([], [], [], [])
    for index, message in enumerate(messages):
        try:
            if message.refused is not None:
                raise message.refused
            event = make_event(message.decoded, received_at=received_at, redactor=redactor)
        except Refused as refused:
            parsed.rejections.append(_rejection(index, message, refused))
            parsed.broken.append(
                broken_event(
                    message.raw or _bytes_of(message.decoded),
                    message.decoded,
                    refused,
                    received_at=received_at,
                    redactor=redactor,
                    origin=origin,
                )
            )
        else:
            parsed.events.append(event)
            parsed.indexes.append(index)
    return parsed


def _from_binary_cloud_event(message: Message, headers: Mapping[str, str]) -> Message:
    envelope = {
        name: headers[f"ce-{name}"]
        for name in ("specversion", "id", "type", "source", "time")
        if f"ce-{name}" in headers
    }
    return message._replace(decoded={**envelope, "data": message.decoded})


def _rejection(index: int, message: Message, refused: Refused) -> Rejection:
    decoded = message.decoded if isinstance(message.decoded, dict) else {}
    event_id = short_text(decoded.get("event_id", decoded.get("key")))
    return Rejection(index, event_id, refused.code, refused.reason)


def _bytes_of(decoded: object) -> bytes:
    """Bytes that are the same for the same element of an array; for hashing only."""
    try:
        return _encoder.encode(decoded)
    except RecursionError:  # decoded just below the interpreter's limit
        return b"".join(_pieces_of(decoded))


def _pieces_of(decoded: object) -> Iterator[bytes]:
    waiting = [decoded]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield repr(sorted(value)).encode()
            waiting += [value[key] for key in sorted(value)]
        elif isinstance(value, list):
            yield b"[%d]" % len(value)
            waiting += value
        else:
            yield repr(value).encode()
