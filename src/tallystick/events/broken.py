"""Broken messages: what is kept of them, and how one becomes an event after all. Pure.

A message that cannot become an event is kept as a fact of type `data.import.error`: why,
which field, where it was read, a digest of its bytes, and (when it could be decoded) a draft
of it. The draft is redacted more strictly than an event, because nobody knows what a broken
message holds: a known field keeps its value only when that looks like what the field is for,
everything else is replaced by the redactor's hash.

A repair is the draft with some fields set anew, judged by the same rules as any message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from tallystick.bounds import ID_LENGTH_MAX
from tallystick.clock import format_time
from tallystick.events.fields import FIELDS, FLAT_TIME_MS_END, Form
from tallystick.events.model import Event, EventType
from tallystick.events.redaction import Redactor, canonical_json, is_hidden
from tallystick.events.rules import (
    MACHINE_NAMES,
    Refused,
    from_cloud_event,
    is_flat_cost,
    is_time,
    make_event,
    rename_flat_cost,
)

UNKNOWN_TENANT = "unknown"
_NUMBERS = {Form.COUNT, Form.POSITIVE, Form.FLAG, Form.LATENCY, Form.AMOUNT}
_NUMBER_TEXT = re.compile(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)
_NUMBER_MAX = 10**9  # longer numbers may be cards, phones or dates of birth
_YEAR_2000_MS = 946_684_800_000
_HASHED_IN_EVENTS = {*MACHINE_NAMES, "error_code"}
"""Fields whose hash is what an event keeps as well, when the value is written text."""


class Origin(NamedTuple):
    """Where a message was read from Kafka."""

    topic: str
    partition: int
    offset: int


class BrokenDetails(msgspec.Struct):
    """What the fact of a broken message keeps in its attrs."""

    reason: str = ""
    field: str | None = None
    draft: dict[str, Any] | None = None
    origin: Origin | None = None


_decoder = msgspec.json.Decoder(BrokenDetails)
_exact_decoder = msgspec.json.Decoder(BrokenDetails, float_hook=Decimal)


def broken_event(
    raw: bytes,
    decoded: Any,
    refused: Refused,
    *,
    received_at: int,
    redactor: Redactor,
    origin: Origin | None = None,
    tenant_id: str = "",
) -> Event:
    """The fact that a broken message came; `decoded` is None when it could not be decoded.

    The same bytes again are the same fact, seen once more. `tenant_id`: of the key that sent
    it; without one, what the message says.
    """
    message = _in_our_names(decoded)
    tenant_id = tenant_id or short_text((message or {}).get("tenant_id")) or UNKNOWN_TENANT
    details: dict[str, Any] = {"reason": refused.reason}
    if refused.field:
        details["field"] = refused.field
    if message is not None:
        with suppress(RecursionError):  # nested to the interpreter's limit: no draft then
            details["draft"] = draft_of(message, tenant_id, redactor)
    if origin is not None:
        details["origin"] = list(origin)
    digest = blake2b(raw, digest_size=16)
    return Event(
        event_id=f"broken:{digest.hexdigest()}",
        event_type=EventType.IMPORT_ERROR,
        occurred_at=received_at,
        received_at=received_at,
        tenant_id=tenant_id,
        reject_code=refused.code,
        attrs=canonical_json(details),
        content_digest=digest.digest(),
    )


def short_text(value: object) -> str | None:
    """An id as it was sent, when it could be one."""
    if isinstance(value, str) and 0 < len(value) <= ID_LENGTH_MAX and value.isprintable():
        return value
    return None


def _in_our_names(decoded: Any) -> dict[str, Any] | None:
    """The message by the names of an event, out of its envelope; None when it is no object."""
    if type(decoded) is not dict:
        return None
    message: dict[str, Any] = decoded
    if "specversion" in message:
        inner = message.get("data")
        message = from_cloud_event({**message, "data": inner if isinstance(inner, dict) else {}})
    return rename_flat_cost(message) if is_flat_cost(message) else message


def draft_of(message: Mapping[str, Any], tenant_id: str, redactor: Redactor) -> dict[str, Any]:
    """What may be kept of a broken message, by the names of an event; fail closed."""
    draft: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    for name, value in message.items():
        field = FIELDS.get(name)
        if field is None:
            extra[name] = value
        elif field.form != Form.ATTRIBUTES or value is None:
            draft[name] = _kept(name, field.form, value, tenant_id, redactor)
        elif type(value) is dict:
            attributes = value
        else:
            draft[name] = redactor.hashed(value, tenant_id)
    if extra or attributes:
        draft["attrs"] = redactor.kept({**extra, **attributes}, tenant_id)
    return draft


def _kept(name: str, form: Form, value: Any, tenant_id: str, redactor: Redactor) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float | Decimal):
        is_safe = -_NUMBER_MAX < value < _NUMBER_MAX
        if form == Form.TIME and isinstance(value, int):
            is_safe = _YEAR_2000_MS <= value < FLAT_TIME_MS_END // 50
        return value if is_safe else redactor.hashed(value, tenant_id)
    if not isinstance(value, str):
        return redactor.hashed(value, tenant_id)
    if value == "":
        return value
    if form == Form.TIME:
        return value if is_time(value) else redactor.hashed(value, tenant_id)
    if form in _NUMBERS:
        return value if _NUMBER_TEXT.fullmatch(value) else redactor.hashed(value, tenant_id)
    if name == "user_id" and redactor.hash_user_ids:
        return redactor.hashed(value, tenant_id)
    if name == "error_code":
        return redactor.error_code(value, tenant_id)
    return redactor.machine_name(value, tenant_id)


def repair(
    draft: dict[str, Any] | None,
    changes: Mapping[str, Any],
    *,
    tenant_id: str,
    received_at: int,
    redactor: Redactor,
    closed_before: int = 0,
) -> Event:
    """Make the event of a draft with `changes` set; raise Refused when it is still broken.

    `tenant_id` is the broken message's; a known one cannot be changed.
    """
    if draft is None:
        raise Refused(
            "not_decodable",
            "nothing of this message could be read: dismiss it, or let its producer send it again",
        )
    for name in changes:
        if name not in FIELDS:
            raise Refused("unknown_field", f"{name[:64]!r} is not a field of an event", "set")
    message = {**draft, **changes}
    if tenant_id != UNKNOWN_TENANT:
        if changes.get("tenant_id", tenant_id) != tenant_id:
            raise Refused("tenant_is_known", "the tenant of a message stays", "tenant_id")
        message["tenant_id"] = tenant_id
    redacted = {}
    if "attrs" not in changes and isinstance(draft.get("attrs"), dict):
        redacted["attrs"] = canonical_json(message.pop("attrs"))
    if redactor.hash_user_ids and "user_id" not in changes and is_hidden(draft.get("user_id")):
        redacted["user_id"] = message.pop("user_id")
    _require_shown(message)
    return make_event(
        message,
        received_at=received_at,
        redactor=redactor,
        redacted=redacted,
        closed_before=closed_before,
    )


def _require_shown(message: Mapping[str, Any]) -> None:
    for name, value in message.items():
        if is_hidden(value) and name not in _HASHED_IN_EVENTS:
            raise Refused(
                "hidden_field",
                f"what {name} was is not kept; set it, or set it to null to leave it out",
                name,
            )


def read_details(attrs: str) -> BrokenDetails:
    """What the attrs of a broken message's fact say; older ones say nothing."""
    return _decoder.decode(attrs) if attrs else BrokenDetails()


def read_draft(attrs: str) -> dict[str, Any] | None:
    """The draft with exact numbers, as a repair wants it."""
    return _exact_decoder.decode(attrs).draft if attrs else None


def broken_message(event: Event) -> dict[str, Any]:
    """The published form of a broken message (broken_message.schema.json)."""
    return present_broken(
        broken_id=event.event_id,
        tenant_id=event.tenant_id,
        received_at=event.received_at,
        code=event.reject_code,
        digest=event.content_digest.hex(),
        attrs=event.attrs,
    )


def present_broken(
    *, broken_id: str, tenant_id: str, received_at: int, code: str, digest: str, attrs: str
) -> dict[str, Any]:
    """Put a broken message into its published form."""
    details = read_details(attrs)
    return {
        "broken_id": broken_id,
        "tenant_id": tenant_id,
        "received_at": format_time(received_at),
        "code": code,
        "field": details.field,
        "reason": details.reason,
        "digest": digest,
        "origin": details.origin and details.origin._asdict(),
        "draft": details.draft,
    }
