"""The canonical event: what every door makes of what it was given, and what the log stores.

An event is immutable and known by (tenant_id, event_id). Its fields travel as one array
(msgpack, in this order), so new fields are appended at the end and never reordered.
Times are micros. `tokens_input` includes cached tokens, `tokens_output` includes
reasoning tokens; the exclusive parts are derived when a price is applied.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Annotated, Any

import msgspec

from tallystick.bounds import ID_LENGTH_MAX, LATENCY_MS_MAX, TOKENS_MAX


class EventType(StrEnum):
    """The types that the product acts on; any other type is kept and counted as unknown."""

    RUN_STARTED = "run_started"
    RUN_COMPLETED = "run_completed"
    RUN_FAILED = "run_failed"
    ATTEMPT_STARTED = "attempt_started"
    ATTEMPT_FINISHED = "attempt_finished"
    TOKEN_USAGE = "token_usage"
    TOOL_CALL_STARTED = "tool_call_started"
    TOOL_CALL_FINISHED = "tool_call_finished"
    CREDIT_GRANTED = "credit_granted"
    CREDIT_RESERVED = "credit_reserved"
    CREDIT_CHARGED = "credit_charged"
    CREDIT_REFUNDED = "credit_refunded"
    COST = "cost"
    IMPORT_ERROR = "data.import.error"


class Event(msgspec.Struct, array_like=True, gc=False, kw_only=True):
    """One canonical event; empty text means "not given"."""

    event_id: str
    event_type: str
    occurred_at: int
    received_at: int
    tenant_id: str
    run_id: str = ""
    attempt: int = 1
    source: str = ""
    schema_version: int = 1
    workflow: str = ""
    agent: str = ""
    user_id: str = ""
    project_id: str = ""
    team: str = ""
    product: str = ""
    feature: str = ""
    customer_tier: str = ""
    environment: str = ""
    parent_run_id: str = ""
    root_run_id: str = ""
    request_id: str = ""
    provider: str = ""
    model: str = ""
    operation: str = ""
    service_tier: str = ""
    is_batch: bool = False
    usage_scope: str = "leaf"
    usage_quality: str = "exact"
    """"exact" as the provider reported it, or "estimated" by the sender."""
    tokens_input: int = 0
    tokens_output: int = 0
    tokens_cache_read: int = 0
    tokens_cache_write_5m: int = 0
    tokens_cache_write_1h: int = 0
    tokens_reasoning: int = 0
    latency_ms: float | None = None
    tool: str = ""
    tool_call_id: str = ""
    error_code: str = ""
    idempotency_key: str = ""
    cost_amount: str = ""
    """A cost stated by the sender, decimal text in `cost_currency` (flat cost records)."""
    cost_currency: str = ""
    attrs: str = ""
    """Redacted attributes as JSON text, or empty."""
    content_digest: bytes = b""
    """16 bytes over the redacted content without receipt time: tells a repeat from a conflict."""
    reject_code: str = ""
    """Why a broken message was refused (type `data.import.error` only)."""


EVENT_FIELDS: tuple[str, ...] = Event.__struct_fields__

_Text = Annotated[str, msgspec.Meta(max_length=ID_LENGTH_MAX)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_LENGTH_MAX)]
_Ordinal = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
_Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]


class Plain(msgspec.Struct, kw_only=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """An event as most producers send it: known fields of the right types, and nothing else.

    What decodes as this needs few further checks (`tallystick.events.plain`); anything else
    is read field by field (`tallystick.events.rules`), which also finds the reason to refuse.
    Nothing is required here: one event without an id must not make its neighbours' reading fail.
    The same fields, given to the same effect, are what the content digest is made of.
    """

    event_id: _Id = ""
    event_type: _Id = ""
    event_time: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    tenant_id: _Id = ""
    run_id: _Text = ""
    attempt: _Ordinal = 1
    source: _Text = ""
    schema_version: _Ordinal = 1
    workflow: _Text = ""
    agent: _Text = ""
    user_id: _Text = ""
    project_id: _Text = ""
    team: _Text = ""
    product: _Text = ""
    feature: _Text = ""
    customer_tier: _Text = ""
    environment: _Text = ""
    parent_run_id: _Text = ""
    root_run_id: _Text = ""
    request_id: _Text = ""
    provider: _Text = ""
    model: _Text = ""
    operation: _Text = ""
    service_tier: _Text = ""
    is_batch: bool = False
    usage_scope: _Text = "leaf"
    usage_quality: _Text = "exact"
    tokens_input: _Tokens = 0
    tokens_output: _Tokens = 0
    tokens_cache_read: _Tokens = 0
    tokens_cache_write_5m: _Tokens = 0
    tokens_cache_write_1h: _Tokens = 0
    tokens_reasoning: _Tokens = 0
    latency_ms: Annotated[float, msgspec.Meta(ge=0, le=LATENCY_MS_MAX)] | None = None
    tool: _Text = ""
    tool_call_id: _Text = ""
    error_code: _Text = ""
    idempotency_key: _Text = ""
    cost_amount: _Text = ""
    cost_currency: _Text = ""
    attrs: dict[str, Any] | None = None


_encoder = msgspec.msgpack.Encoder()


def digest_of(plain: Plain) -> bytes:
    """The digest of one event."""
    return digests_of([plain])[0]


def digests_of(plains: Iterable[Plain]) -> list[bytes]:
    """16 bytes each over what a redacted event says (its time in micros, receipt left out).

    Only fields that were given are encoded, by name: a field that is added to the product
    later does not make an old event's repeat look like a conflict.
    """
    return [blake2b(_encoder.encode(plain), digest_size=16).digest() for plain in plains]
