"""Events that the product itself makes of calls: columns at once, without being sent as JSON.

They say what the same event would say that came as JSON, to the byte of its digest: whoever
settles a call, by whichever way in, says the same (`tests/unit/test_own_events.py`). They are
redacted as any other, because names of models, headers of providers and what callers say of
their work are in them. An event that this short way cannot vouch for is left to the parser.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import msgspec

from tallystick.bounds import FUTURE_TOLERANCE
from tallystick.clock import from_datetime
from tallystick.events.batch import EventBatch
from tallystick.events.fields import RESERVED_PREFIX
from tallystick.events.model import EVENT_FIELDS, EventType, Plain, digest_of
from tallystick.events.redaction import Redactor
from tallystick.events.rules import MACHINE_NAMES, Refused, flat_attributes

_LAID_BY = ("occurred_at", "received_at", "content_digest", "reject_code")
_TAKEN_OVER = tuple(name for name in EVENT_FIELDS if name not in _LAID_BY)
_values_of = attrgetter(*_TAKEN_OVER)
_TYPES = frozenset({EventType.TOKEN_USAGE, EventType.TOOL_CALL_FINISHED})


def own_event(
    message: Mapping[str, Any], received_at: int, redactor: Redactor
) -> EventBatch | None:
    """One event (its time a datetime) as a batch of one; None: the parser has to read it."""
    if message["event_type"] not in _TYPES or "usage_scope" in message or not _is_clean(message):
        return None
    try:
        plain = msgspec.convert(message, Plain)
        attributes = flat_attributes({"attrs": message.get("attrs")})
    except (msgspec.ValidationError, Refused):
        return None
    if not _is_kept(plain, received_at, redactor):
        return None
    occurred_at = from_datetime(message["event_time"])
    plain.event_time = occurred_at  # type: ignore[assignment]
    if "usage_quality" in message:
        # msgspec leaves out of the digest what *is* the default, not what equals it: a text
        # that came as JSON is never the same object
        plain.usage_quality = "".join([*plain.usage_quality])
    if attributes:
        plain.attrs = redactor.attributes(attributes, plain.tenant_id)  # type: ignore[assignment]
    if redactor.hash_user_ids and plain.user_id:
        plain.user_id = redactor.hashed(plain.user_id, plain.tenant_id)
    columns = dict(zip(_TAKEN_OVER, _values_of(plain), strict=True))
    columns["occurred_at"] = occurred_at
    columns["received_at"] = received_at
    columns["content_digest"] = digest_of(plain)
    columns["attrs"] = plain.attrs or ""
    columns["reject_code"] = ""
    return EventBatch(1, [[columns[name]] for name in EVENT_FIELDS])


def _is_clean(message: Mapping[str, Any]) -> bool:
    """No text that JSON would escape, or that begins as the product's own ids do."""
    texts = [value for value in message.values() if type(value) is str]
    for name, value in message.get("attrs", {}).items():
        if type(value) is not str:
            return False
        texts += (name, value)
    text = " ".join(texts)
    return text.isascii() and text.isprintable() and RESERVED_PREFIX not in text


def _is_kept(plain: Plain, received_at: int, redactor: Redactor) -> bool:
    """Whether the parser would take every field as it is."""
    cached = plain.tokens_cache_read + plain.tokens_cache_write_5m + plain.tokens_cache_write_1h
    if cached > plain.tokens_input or plain.tokens_reasoning > plain.tokens_output:
        return False
    if plain.usage_quality not in ("exact", "estimated"):
        return False
    for name in MACHINE_NAMES:
        text = getattr(plain, name)
        if text and redactor.machine_name(text, "") != text:
            return False
    code = plain.error_code
    if code and redactor.error_code(code, "") != code:
        return False
    moment = from_datetime(plain.event_time)
    return 0 <= moment <= received_at + FUTURE_TOLERANCE and not plain.cost_amount
