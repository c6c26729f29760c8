"""Adapters: every accepted form of a request body becomes canonical events.

One object, an array, NDJSON, CloudEvents 1.0 (structured, batch, binary by `ce-` headers)
and the flat cost record; gzip or zstd encoded too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from tallystick.bounds import EVENTS_PER_REQUEST_MAX
from tallystick.errors import BodyTooLarge
from tallystick.events.batch import EMPTY, EventBatch, batch_of, join_batches
from tallystick.events.broken import Origin, broken_event, short_text
from tallystick.events.framing import (
    ARRAY_TYPES,
    NDJSON_TYPES,
    Message,
    decode_alone,
    decompress,
    split_messages,
)
from tallystick.events.model import Event
from tallystick.events.plain import Split, split_plain
from tallystick.events.redaction import Redactor
from tallystick.events.rules import Refused, make_event
from tallystick.events.tenancy import require_tenant, with_tenant

_encoder = msgspec.json.Encoder(order="deterministic")


class Rejection(msgspec.Struct):
    """Why one message of a request was not accepted."""

    index: int
    event_id: str | None
    code: str
    reason: str


class ParsedBody(msgspec.Struct):
    """What a request body held; `indexes[i]` is the place in it of the i-th event."""

    batch: EventBatch
    indexes: list[int]
    rejections: list[Rejection]
    broken: list[Event]
    """One `data.import.error` for each rejection."""

    @property
    def events(self) -> list[Event]:
        """The events one by one."""
        return self.batch.events()


def parse_body(
    body: bytes,
    *,
    content_type: str,
    content_encoding: str,
    headers: Mapping[str, str],
    received_at: int,
    redactor: Redactor,
    origin: Origin | None = None,
    tenant_id: str = "",
    closed_before: int = 0,
) -> ParsedBody:
    """Parse, validate and redact a request body, or one message read from `origin`.

    One bad message never blocks its neighbours. With a tenant, an event that names none is its
    own and one of another is refused; what happened before `closed_before` is too. Raises
    BodyTooLarge, BodyUnreadable or UnsupportedForm when the body as a whole cannot be used.
    """
    plain = decompress(body, content_encoding)
    ours: dict[str, Any] = {"received_at": received_at, "redactor": redactor}
    judged = {**ours, "closed_before": closed_before}
    split, left = _cut(plain, content_type, headers, partial(split_plain, **judged), tenant_id)
    if split.batch.size + len(left) > EVENTS_PER_REQUEST_MAX:
        raise BodyTooLarge(
            f"a request may hold at most {EVENTS_PER_REQUEST_MAX} events", code="too_many_events"
        )
    events: list[Event] = []
    parsed = ParsedBody(EMPTY, split.indexes, [], [])
    for index, message in left:
        message = message._replace(decoded=with_tenant(message.decoded, tenant_id))
        try:
            if message.refused is not None:
                raise message.refused
            event = make_event(message.decoded, **judged)
            require_tenant(event.tenant_id, tenant_id)
            events.append(event)
        except Refused as refused:
            parsed.rejections.append(_rejection(index, message, refused))
            parsed.broken.append(
                broken_event(
                    message.raw or _bytes_of(message.decoded),
                    message.decoded,
                    refused,
                    origin=origin,
                    tenant_id=tenant_id,
                    **ours,
                )
            )
        else:
            parsed.indexes.append(index)
    parsed.batch = join_batches([split.batch, batch_of(events)])
    if events and split.batch.size:  # what came first in the request comes first in the log
        order = sorted(range(parsed.batch.size), key=parsed.indexes.__getitem__)
        parsed.batch = parsed.batch.reorder(order)
        parsed.indexes.sort()
    return parsed


def _cut(
    plain: bytes,
    content_type: str,
    headers: Mapping[str, str],
    read_plain: Callable[..., Split | None],
    tenant_id: str,
) -> tuple[Split, list[tuple[int, Message]]]:
    """What the short way made of a body, and what the long way must read."""
    media_type = content_type.partition(";")[0].strip().lower()
    is_lines = media_type in NDJSON_TYPES
    split = None
    if is_lines or (media_type in ARRAY_TYPES and plain.lstrip()[:1] == b"["):
        split = read_plain(plain, is_lines=is_lines)
    if split is not None and not (tenant_id and _has_others(split.batch, tenant_id)):
        return split, [(place, decode_alone(raw)) for place, raw in split.left]
    messages = split_messages(plain, content_type)
    if len(messages) == 1 and "ce-specversion" in headers:
        messages = [_from_binary_cloud_event(messages[0], headers)]
    return Split(EMPTY, [], []), list(enumerate(messages))


def _has_others(batch: EventBatch, tenant_id: str) -> bool:
    return batch.size > 0 and set(batch.values("tenant_id")) != {tenant_id}


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
