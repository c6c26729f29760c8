"""The short way in: a request of plain events becomes columns without a step for each field.

The decoder checks types, lengths and ranges; what it cannot check is checked a column at a
time, on distinct values where there are few. An event that does not pass is left to the long
way (`rules.make_event`), which accepts it or says why not: both ways agree on every event
that both can read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import compress
from typing import Any, NamedTuple

import msgspec

from tallystick.bounds import FUTURE_TOLERANCE
from tallystick.events.batch import EMPTY, EventBatch
from tallystick.events.fields import RESERVED_PREFIX
from tallystick.events.model import EVENT_FIELDS, EventType, Plain, digest_of
from tallystick.events.redaction import Redactor
from tallystick.events.rules import MACHINE_NAMES, flat_attributes
from tallystick.plumbing.log.columns import shorten

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_list = msgspec.json.Decoder(list[Plain], float_hook=Decimal)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_one = msgspec.json.Decoder(Plain, float_hook=Decimal)
_RESERVED = RESERVED_PREFIX.encode()
_CHOICES = {
    "usage_scope": {"leaf", "aggregate"},
    "usage_quality": {"exact", "estimated"},
    "cost_amount": {""},  # amounts are read digit by digit, the long way
    "cost_currency": {""},
}
_LONG_TYPES = {EventType.IMPORT_ERROR, EventType.COST}
_LAID_BY = {"received_at", "content_digest", "reject_code"}
_TAKEN_OVER = tuple(
    name for name in EVENT_FIELDS if name not in _LAID_BY | {"occurred_at", "attrs"}
)


class Split(NamedTuple):
    """What the short way made of a request, and what it left to the long way."""

    batch: EventBatch
    indexes: list[int]
    """The place in the request of each event of the batch."""
    left: list[tuple[int, bytes]]
    """(place, text) of what the long way must read."""


def split_plain(
    body: bytes, *, is_lines: bool, received_at: int, redactor: Redactor
) -> Split | None:
    """Read a JSON array or NDJSON; None when the body as a whole needs the long way."""
    plains = _decode_all(body, is_lines)
    if plains is not None:
        is_good = _check(plains, received_at, redactor)
        if all(is_good):
            return Split(_batch(plains, received_at, redactor), list(range(len(plains))), [])
    raws = _cut(body, is_lines)
    if raws is None:
        return None
    found: list[tuple[int, Plain]] = []
    left: list[tuple[int, bytes]] = []
    for place, raw in enumerate(raws):
        plain = _decode_one(raw)
        if plain is None:
            left.append((place, raw))
        else:
            found.append((place, plain))
    plains = [plain for _, plain in found]
    is_good = _check(plains, received_at, redactor)
    left += [
        (place, raws[place]) for (place, _), good in zip(found, is_good, strict=True) if not good
    ]
    plains = list(compress(plains, is_good))
    indexes = [place for (place, _), good in zip(found, is_good, strict=True) if good]
    return Split(_batch(plains, received_at, redactor), indexes, sorted(left))


def _is_clean(text: bytes) -> bool:
    """No escape, no character beyond ASCII: then no text in it has a control character."""
    return b"\\" not in text and text.isascii() and b"\x7f" not in text and _RESERVED not in text


def _decode_all(body: bytes, is_lines: bool) -> list[Plain] | None:
    if not _is_clean(body):
        return None
    try:
        return _one.decode_lines(body) if is_lines else _list.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def _cut(body: bytes, is_lines: bool) -> list[bytes] | None:
    if is_lines:
        return [line for line in body.splitlines() if line.strip()]
    try:
        return [bytes(raw) for raw in _raws.decode(body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decode_one(raw: bytes) -> Plain | None:
    if not _is_clean(raw):
        return None
    try:
        return _one.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _check(plains: Sequence[Plain], received_at: int, redactor: Redactor) -> list[bool]:
    """Which events need nothing more; also sets their time to micros and redacts attributes."""
    good = [True] * len(plains)
    for name in (*MACHINE_NAMES, "error_code", *_CHOICES):
        values = [getattr(plain, name) for plain in plains]
        bad = {value for value in set(values) if not _is_kept(name, value, redactor)}
        if bad:
            good = [
                is_good and value not in bad for is_good, value in zip(good, values, strict=True)
            ]
    latest = received_at + FUTURE_TOLERANCE
    for index, plain in enumerate(plains):
        since = plain.event_time - _EPOCH
        micros = since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds
        if not 0 <= micros <= latest or not _sums_agree(plain):
            good[index] = False
        elif good[index]:
            plain.event_time = micros  # type: ignore[assignment]
    if any(plain.attrs for plain in plains):
        _redact_attributes(plains, good, redactor)
    return good


def _is_kept(name: str, value: str, redactor: Redactor) -> bool:
    if name in _CHOICES:
        return value in _CHOICES[name]
    if not value:
        return True
    if name == "error_code":
        return redactor.error_code(value, "") == value
    return value not in _LONG_TYPES and redactor.machine_name(value, "") == value


def _sums_agree(plain: Plain) -> bool:
    cached = plain.tokens_cache_read + plain.tokens_cache_write_5m + plain.tokens_cache_write_1h
    return cached <= plain.tokens_input and plain.tokens_reasoning <= plain.tokens_output


def _redact_attributes(plains: Sequence[Plain], good: list[bool], redactor: Redactor) -> None:
    for index, plain in enumerate(plains):
        if plain.attrs and good[index]:
            try:
                attributes = flat_attributes({"attrs": plain.attrs})
            except Exception:  # nested too deep: the long way says so
                good[index] = False
                continue
            plain.attrs = redactor.attributes(attributes, plain.tenant_id)  # type: ignore[assignment]


def _batch(plains: Sequence[Plain], received_at: int, redactor: Redactor) -> EventBatch:
    if not plains:
        return EMPTY
    if redactor.hash_user_ids:
        for plain in plains:
            if plain.user_id:
                plain.user_id = redactor.hashed(plain.user_id, plain.tenant_id)
    columns: dict[str, list[Any]] = {
        name: shorten([getattr(plain, name) for plain in plains]) for name in _TAKEN_OVER
    }
    columns["occurred_at"] = [plain.event_time for plain in plains]
    columns["received_at"] = [received_at]
    columns["attrs"] = shorten([plain.attrs or "" for plain in plains])
    columns["content_digest"] = [digest_of(plain) for plain in plains]
    columns["reject_code"] = [""]
    return EventBatch(len(plains), [columns[name] for name in EVENT_FIELDS])
