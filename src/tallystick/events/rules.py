"""From one decoded message to one canonical event, or to the reason why not. Pure.

Reasons name the field and the fix, and never repeat what was sent: it may be content.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from tallystick.bounds import (
    AMOUNT_DIGITS_MAX,
    AMOUNT_MAX,
    EVENT_NESTING_MAX,
    FUTURE_TOLERANCE,
    ID_LENGTH_MAX,
    LATENCY_MS_MAX,
    TOKENS_MAX,
)
from tallystick.clock import format_time
from tallystick.events.fields import (
    FIELDS,
    FLAT_COST,
    FLAT_TIME_MS_END,
    RESERVED_PREFIX,
    USAGE_QUALITIES,
    USAGE_SCOPES,
    Form,
)
from tallystick.events.model import Event, EventType, Plain, digest_of
from tallystick.events.redaction import Redactor

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII)
_AMOUNT = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class Refused(Exception):
    """One message cannot become an event; `code` is stable, `reason` is for people.

    `field` is the name of the field that is wrong, as it was sent, or "" when it is no field.
    """

    def __init__(self, code: str, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.field = field


def read_text(value: Any, field: str) -> str:
    """Read an id or a dimension; null counts as not given."""
    if value is None:
        return ""
    if type(value) is not str:
        raise Refused("wrong_type", f"{field} must be a string", field)
    if len(value) > ID_LENGTH_MAX:
        raise Refused("id_too_long", f"{field} may have at most {ID_LENGTH_MAX} characters", field)
    if not value.isprintable() and any(_is_control(character) for character in value):
        raise Refused("control_character", f"{field} may not contain control characters", field)
    return value


def _is_control(character: str) -> bool:
    point = ord(character)
    return point < 0x20 or 0x7F <= point <= 0x9F or 0xD800 <= point <= 0xDFFF


def read_count(value: Any, field: str) -> int:
    """Read a count of tokens: an integer from 0; null counts as 0."""
    if value is None:
        return 0
    if type(value) is not int:
        raise Refused("wrong_type", f"{field} must be a whole number", field)
    if value < 0:
        raise Refused("negative_number", f"{field} may not be negative", field)
    if value > TOKENS_MAX:
        raise Refused("number_too_large", f"{field} may be at most {TOKENS_MAX}", field)
    return value


def read_positive(value: Any, field: str) -> int:
    """Read an attempt or a version: an integer from 1 (version text such as "1" too)."""
    if value is None:
        return 1
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if type(value) is not int:
        raise Refused("wrong_type", f"{field} must be a whole number", field)
    if not 1 <= value < 2**31:
        raise Refused("out_of_range", f"{field} must be from 1 to 2147483647", field)
    return value


def read_flag(value: Any, field: str) -> bool:
    """Read a boolean; null counts as false."""
    if value is None:
        return False
    if type(value) is not bool:
        raise Refused("wrong_type", f"{field} must be true or false", field)
    return value


def read_latency(value: Any, field: str) -> float | None:
    """Read milliseconds: a finite number from 0, or null."""
    if value is None:
        return None
    if type(value) is bool or not isinstance(value, int | float | Decimal):
        raise Refused("wrong_type", f"{field} must be a number of milliseconds", field)
    if isinstance(value, int):  # any number of digits: no float takes all of them
        value = max(-1, min(value, LATENCY_MS_MAX + 1))
    latency = float(value)
    if not math.isfinite(latency):
        raise Refused("not_finite", f"{field} must be finite", field)
    if latency < 0:
        raise Refused("negative_number", f"{field} may not be negative", field)
    if latency > LATENCY_MS_MAX:
        raise Refused("number_too_large", f"{field} may be at most {LATENCY_MS_MAX}", field)
    return latency


def read_amount(value: Any, field: str) -> str:
    """Read a stated cost exactly: a decimal number or its text, not negative."""
    if type(value) is bool or not isinstance(value, str | int | float | Decimal):
        raise Refused("wrong_type", f"{field} must be a decimal number", field)
    if isinstance(value, float | Decimal):
        number = Decimal(str(value))
        if not number.is_finite():
            raise Refused("not_finite", f"{field} must be finite", field)
        if not -AMOUNT_DIGITS_MAX < number.adjusted() < AMOUNT_DIGITS_MAX:
            raise Refused("bad_amount", f"{field} has too many digits", field)
        value = format(number, "f")
    text = str(value)
    if text.startswith("-"):
        raise Refused("negative_number", f"{field} may not be negative", field)
    if len(text) > AMOUNT_DIGITS_MAX or not _AMOUNT.fullmatch(text):
        raise Refused("bad_amount", f'{field} must be a decimal number such as "0.0025"', field)
    if Decimal(text) > AMOUNT_MAX:
        raise Refused("number_too_large", f"{field} may be at most {AMOUNT_MAX}", field)
    return text


def read_currency(value: Any, field: str) -> str:
    """Read a three-letter currency code."""
    if value is None:
        return ""
    if type(value) is not str or not _CURRENCY.fullmatch(value):
        raise Refused("bad_currency", f"{field} must be three capital letters such as USD", field)
    return value


def read_time(value: Any, field: str, now: int, closed_before: int = 0) -> int:
    """Read an RFC 3339 time with an offset into micros (finer digits are rounded).

    Before `closed_before` facts have expired: what comes of then is refused.
    """
    if type(value) is not str:
        raise Refused("wrong_type", f"{field} must be a text such as 2026-01-31T12:00:00Z", field)
    try:
        moment = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        if is_time(value):
            raise Refused("bad_time", f"{field} names a time that does not exist", field) from None
        raise Refused(
            "bad_time", f"{field} must look like 2026-01-31T12:00:00Z (RFC 3339)", field
        ) from None
    if moment.tzinfo is None:
        raise Refused("naive_time", f"{field} has no offset; end it with Z or like +02:00", field)
    try:
        micros = (moment - _EPOCH) // _MICROSECOND
        return _within_reason(micros, field, now, closed_before)
    except OverflowError:
        raise Refused("bad_time", f"{field} names a time that does not exist", field) from None


def is_time(text: str) -> bool:
    """Tell whether a text is written as a time, with or without an offset."""
    return _TIME.fullmatch(text) is not None


def _within_reason(micros: int, field: str, now: int, closed_before: int) -> int:
    if micros > now + FUTURE_TOLERANCE:
        raise Refused(
            "time_in_future", f"{field} is more than 1 hour ahead of our clock; check yours", field
        )
    if micros < 0:
        raise Refused("bad_time", f"{field} may not be before 1970", field)
    if micros < closed_before:
        raise Refused(
            "time_expired",
            f"{field} is before {format_time(closed_before)}: facts of that time have expired, "
            "and nothing is charged for it any more",
            field,
        )
    return micros


_FORM_READERS: dict[Form, Callable[[Any, str], Any]] = {
    Form.IDENTITY: read_text,
    Form.RUN: read_text,
    Form.TEXT: read_text,
    Form.SCOPE: read_text,
    Form.QUALITY: read_text,
    Form.COUNT: read_count,
    Form.POSITIVE: read_positive,
    Form.FLAG: read_flag,
    Form.LATENCY: read_latency,
    Form.AMOUNT: read_amount,
    Form.CURRENCY: read_currency,
}
_READERS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    field.name: (field.target or field.name, _FORM_READERS[field.form])
    for field in FIELDS.values()
    if field.form in _FORM_READERS
}
"""Name on the wire -> canonical name and reader; the time and attrs are read apart."""

MACHINE_NAMES = (
    "event_type",
    "source",
    "provider",
    "model",
    "operation",
    "service_tier",
    "tool",
)
"""Names given by machines; written text in them is content gone astray."""

_MEANINGFUL_DEFAULTS = {"usage_scope": "leaf", "usage_quality": "exact"}


def is_flat_cost(message: Mapping[str, Any]) -> bool:
    """Tell whether this is a flat cost record: no event_type, but its own key names."""
    return "event_type" not in message and "key" in message and "tenantId" in message


def rename_flat_cost(message: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the fields of a flat cost record; a timestamp in ms becomes RFC 3339."""
    renamed = {FLAT_COST.get(name, name): value for name, value in message.items()}
    moment = renamed.get("event_time")
    if type(moment) is int and 0 <= moment < FLAT_TIME_MS_END:
        renamed["event_time"] = (_EPOCH + timedelta(milliseconds=moment)).isoformat()
    renamed["event_type"] = EventType.COST.value
    renamed.setdefault("cost_currency", "USD")
    return renamed


def from_cloud_event(message: Mapping[str, Any]) -> dict[str, Any]:
    """Take our event out of a CloudEvents 1.0 envelope; the envelope fills what is missing."""
    inner = message.get("data")
    if not isinstance(inner, dict):
        raise Refused("not_an_object", "data of a CloudEvent must be a JSON object")
    filled = dict(inner)
    if is_flat_cost(filled):
        return filled
    for ours, theirs in (("event_id", "id"), ("event_type", "type"), ("event_time", "time")):
        if filled.get(ours) in (None, "") and theirs in message:
            filled[ours] = message[theirs]
    if not filled.get("source") and isinstance(message.get("source"), str):
        filled["source"] = message["source"][:ID_LENGTH_MAX]
    return filled


def make_event(
    message: Any,
    *,
    received_at: int,
    redactor: Redactor,
    redacted: Mapping[str, Any] | None = None,
    closed_before: int = 0,
) -> Event:
    """Turn one decoded message into a canonical event; raise Refused with the reason.

    `redacted` are canonical fields that went through the redactor before; they are taken
    as they are. What happened before `closed_before` is refused.
    """
    if type(message) is not dict:
        raise Refused("not_an_object", "an event must be a JSON object")
    if "specversion" in message:
        message = from_cloud_event(message)
    if is_flat_cost(message):
        message = rename_flat_cost(message)
    fields: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, value in message.items():
        reader = _READERS.get(name)
        if reader is None:
            extra[name] = value
        else:
            fields[reader[0]] = reader[1](value, name)
    occurred_at: Any = _occurred_at(extra, received_at, closed_before)
    _require_identity(fields)
    _check_sums(fields)
    for name, default in _MEANINGFUL_DEFAULTS.items():
        if fields.get(name) == "":
            fields[name] = default
    tenant_id = fields["tenant_id"]
    if extra and (kept := redactor.attributes(flat_attributes(extra), tenant_id)):
        fields["attrs"] = kept
    for name in MACHINE_NAMES:
        if text := fields.get(name):
            fields[name] = redactor.machine_name(text, tenant_id)
    if error_code := fields.get("error_code"):
        fields["error_code"] = redactor.error_code(error_code, tenant_id)
    if redactor.hash_user_ids and fields.get("user_id"):
        fields["user_id"] = redactor.hashed(fields["user_id"], tenant_id)
    fields.update(redacted or {})
    return Event(
        occurred_at=occurred_at,
        received_at=received_at,
        content_digest=digest_of(Plain(event_time=occurred_at, **fields)),
        **fields,
    )


def _occurred_at(extra: dict[str, Any], now: int, closed_before: int) -> int:
    if "event_time" not in extra:
        raise Refused("missing_field", "event_time is missing", "event_time")
    return read_time(extra.pop("event_time"), "event_time", now, closed_before)


def _require_identity(fields: dict[str, Any]) -> None:
    for name in ("event_id", "event_type", "tenant_id"):
        if name not in fields:
            raise Refused("missing_field", f"{name} is missing", name)
        if not fields[name]:
            raise Refused("empty_id", f"{name} may not be empty", name)
    for name in ("run_id", "event_type", "tenant_id", "event_id"):
        if fields.get(name, "").startswith(RESERVED_PREFIX):
            raise Refused("reserved_id", f"{name} may not begin with {RESERVED_PREFIX}", name)
    if fields["event_type"] == EventType.IMPORT_ERROR:
        raise Refused(
            "reserved_id", "event_type data.import.error is made by the server only", "event_type"
        )
    if fields["event_type"] == EventType.COST and not fields.get("cost_amount"):
        raise Refused("missing_field", "a cost event needs cost_amount", "cost_amount")


def _check_sums(fields: dict[str, Any]) -> None:
    cached = (
        fields.get("tokens_cache_read", 0)
        + fields.get("tokens_cache_write_5m", 0)
        + fields.get("tokens_cache_write_1h", 0)
    )
    if cached > fields.get("tokens_input", 0):
        raise Refused(
            "inconsistent_tokens",
            "tokens_input includes cached tokens and may not be less than their sum",
            "tokens_input",
        )
    if fields.get("tokens_reasoning", 0) > fields.get("tokens_output", 0):
        raise Refused(
            "inconsistent_tokens",
            "tokens_output includes reasoning tokens and may not be less than them",
            "tokens_output",
        )
    if fields.get("usage_scope", "leaf") not in (*USAGE_SCOPES, ""):
        raise Refused("bad_choice", "usage_scope must be leaf or aggregate", "usage_scope")
    if fields.get("usage_quality", "exact") not in (*USAGE_QUALITIES, ""):
        raise Refused("bad_choice", "usage_quality must be exact or estimated", "usage_quality")


def flat_attributes(extra: dict[str, Any]) -> dict[str, Any]:
    """Unknown fields and `attrs` as one; raise Refused when they are nested too deep."""
    attributes = extra.pop("attrs", None)
    if attributes is not None and type(attributes) is not dict:
        raise Refused("wrong_type", "attrs must be a JSON object", "attrs")
    flat = {**extra, **(attributes or {})}
    for value in flat.values():
        if type(value) in (dict, list) and _nesting(value) > EVENT_NESTING_MAX:
            raise Refused(
                "nesting_too_deep",
                f"an event may be nested at most {EVENT_NESTING_MAX} levels deep",
            )
    return flat


def _nesting(value: Any) -> int:
    depth, level = 0, [value]
    while level and depth <= EVENT_NESTING_MAX:
        depth += 1
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) in (dict, list)
        ]
    return depth
