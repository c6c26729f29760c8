"""OTLP: OpenTelemetry's GenAI spans and log records become canonical events.

One parser a request. Spans that say nothing of usage (HTTP, databases) are passed over and
counted; a span that cannot be read is a `data.import.error` and harms no neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace

from tallystick.bounds import EVENTS_PER_REQUEST_MAX, ID_LENGTH_MAX
from tallystick.errors import BodyTooLarge
from tallystick.events.adapters import ParsedBody, Rejection
from tallystick.events.batch import EMPTY, batch_of
from tallystick.events.broken import UNKNOWN_TENANT, broken_event
from tallystick.events.framing import decompress
from tallystick.events.model import Event
from tallystick.events.otlp_doubles import speakers
from tallystick.events.otlp_framing import Piece, encoding_of, split_records
from tallystick.events.otlp_rules import Understood, messages_of, seen, understand
from tallystick.events.redaction import Redactor
from tallystick.events.rules import Refused, make_event
from tallystick.events.tenancy import require_tenant

TENANT_HEADER = "x-tallystick-tenant"


class OtlpParser:
    """Parses one request of `signal` ("traces" or "logs"); a door's `parse`."""

    def __init__(self, signal: str) -> None:
        self._signal = signal
        self.ignored = 0
        """Records that say nothing of usage."""
        self.repeated = 0
        """Spans that repeat a call of another span; kept as aggregate, not billed."""

    def __call__(
        self,
        body: bytes,
        *,
        content_type: str,
        content_encoding: str,
        headers: Mapping[str, str],
        received_at: int,
        redactor: Redactor,
        tenant_id: str = "",
        closed_before: int = 0,
    ) -> ParsedBody:
        """Parse a body; raises as `parse_body` does when it cannot be used as a whole."""
        encoding = encoding_of(content_type)
        pieces = split_records(decompress(body, content_encoding), encoding, self._signal)
        if len(pieces) > EVENTS_PER_REQUEST_MAX:
            raise BodyTooLarge(
                f"a request may hold at most {EVENTS_PER_REQUEST_MAX} records",
                code="too_many_events",
            )
        parsed = ParsedBody(EMPTY, [], [], [])
        if tenant_id:
            headers = {**headers, TENANT_HEADER: tenant_id}
        read: list[tuple[int, Understood]] = []
        for index, piece in enumerate(pieces):
            try:
                if piece.refused is not None:
                    raise piece.refused
                understood = understand(piece, self._signal, headers.get(TENANT_HEADER, ""))
                require_tenant(understood.tenant_id, tenant_id)
                read.append((index, understood))
            except Refused as refused:
                _reject(parsed, index, piece, refused, headers, received_at, redactor)
        make = partial(
            make_event, received_at=received_at, redactor=redactor, closed_before=closed_before
        )
        refuse = partial(_reject, headers=headers, received_at=received_at, redactor=redactor)
        self._add_events(parsed, pieces, read, make, refuse)
        if tenant_id:
            parsed.broken = [replace(one, tenant_id=tenant_id) for one in parsed.broken]
        return parsed

    def _add_events(
        self,
        parsed: ParsedBody,
        pieces: list[Piece],
        read: list[tuple[int, Understood]],
        make: Callable[..., Event],
        refuse: Callable[..., None],
    ) -> None:
        spans = [seen(understood, pieces[index].library) for index, understood in read]
        made: list[Event] = []
        speaking = speakers(spans, "call") | speakers(spans, "tool")
        for place, (index, understood) in enumerate(read):
            is_speaker = place in speaking
            self.repeated += understood.kind in ("call", "tool") and not is_speaker
            try:
                events = [
                    make(message)
                    for message in messages_of(pieces[index], understood, is_speaker=is_speaker)
                ]
            except Refused as refused:
                refuse(parsed, index, pieces[index], refused)
                continue
            self.ignored += not events and understood.kind != "tool"
            made += events
            parsed.indexes += [index] * len(events)
        parsed.batch = batch_of(made)


def _reject(
    parsed: ParsedBody,
    index: int,
    piece: Piece,
    refused: Refused,
    headers: Mapping[str, str],
    received_at: int,
    redactor: Redactor,
) -> None:
    known = {"tenant_id": _tenant(piece, headers)}
    parsed.rejections.append(Rejection(index, None, refused.code, refused.reason))
    parsed.broken.append(
        broken_event(piece.raw, known, refused, received_at=received_at, redactor=redactor)
    )


def _tenant(piece: Piece, headers: Mapping[str, str]) -> str:
    on_span: Any = piece.record.attributes.get("tallystick.tenant_id") if piece.record else None
    given = on_span or piece.resource.get("tallystick.tenant_id") or headers.get(TENANT_HEADER)
    if isinstance(given, str) and 0 < len(given) <= ID_LENGTH_MAX and given.isprintable():
        return given
    return UNKNOWN_TENANT
