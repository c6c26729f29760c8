"""The short way in: a request of plain events becomes columns without a step for each field.

The decoder checks types, lengths and ranges; what it cannot check is checked a column at a
time, on distinct values where there are few. An event that does not pass is left to the long
way (`rules.make_event`), which accepts it or says why not: both ways agree on every event
that both can read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import astuple

from tallystick.bounds import FUTURE_TOLERANCE
from tallystick.events.batch import EMPTY, EventBatch
from tallystick.events.fields import RESERVED_PREFIX
from tallystick.events.framing import UNDECODABLE
from tallystick.events.model import EVENT_FIELDS, EventType, Plain, digests_of
from tallystick.events.redaction import Redactor
from tallystick.events.rules import MACHINE_NAMES, Refused, flat_attributes
from tallystick.plumbing.log.columns import columns_of_rows, expand, shorten

_REQUIRED = ("event_id", "event_type", "tenant_id")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEFORE = _EPOCH - timedelta(microseconds=1)
_list = msgspec.json.Decoder(list[Plain], float_hook=Decimal)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_one = msgspec.json.Decoder(Plain, float_hook=Decimal)
_FIELDS = Plain.__struct_fields__
_CHOICES = {
    "usage_scope": {"leaf", "aggregate"},
    "usage_quality": {"exact", "estimated"},
    "cost_amount": {""},  # amounts are read digit by digit, the long way
    "cost_currency": {""},
}
_PARTS = {
    "tokens_input": ("tokens_cache_read", "tokens_cache_write_5m", "tokens_cache_write_1h"),
    "tokens_output": ("tokens_reasoning",),
}
_LONG_TYPES = {EventType.IMPORT_ERROR, EventType.COST}

_Columns = dict[str, list[Any]]
_Text = bytes | msgspec.Raw


class Split(NamedTuple):
    """What the short way made of a request, and what it left to the long way."""

    batch: EventBatch
    indexes: list[int]
    """The place in the request of each event of the batch."""
    left: list[tuple[int, bytes]]
    """(place, text) of what the long way must read."""


def split_plain(
    body: bytes, *, is_lines: bool, received_at: int, redactor: Redactor, closed_before: int = 0
) -> Split | None:
    """Read a JSON array or NDJSON; None when the body as a whole needs the long way.

    What happened before `closed_before` is left to it.
    """
    times = range(closed_before, received_at + FUTURE_TOLERANCE + 1)
    is_clean = _is_clean(body)
    plains = _decode_all(body, is_lines) if is_clean else None
    columns = _columns_of(plains or [])
    faulty = _faulty(columns, len(plains or []), times, redactor)
    if plains is not None and not faulty:
        return Split(_batch(plains, columns, received_at, redactor), [*range(len(plains))], [])
    raws = _cut(body, is_lines)
    if raws is None:
        return None
    places = [*range(len(raws))]
    if plains is None or len(plains) != len(raws):
        decoded = [_decode_one(raw, is_clean) for raw in raws]
        places = [place for place in places if decoded[place] is not None]
        plains = [plain for plain in decoded if plain is not None]
        columns = _columns_of(plains)
        faulty = _faulty(columns, len(plains), times, redactor)
    _leave_out(faulty, len(plains), [plains, places, *columns.values()])
    left = sorted(set(range(len(raws))).difference(places))
    return Split(
        _batch(plains, columns, received_at, redactor),
        places,
        [(place, bytes(raws[place])) for place in left],
    )


def _leave_out(faulty: set[int], count: int, parallel: Sequence[list[Any]]) -> None:
    """Take what stands at faulty places out of lists that have one value for each event."""
    places = sorted(faulty, reverse=True)
    for values in parallel:
        if len(values) == count:
            for place in places:
                del values[place]


def _is_clean(text: bytes) -> bool:
    """No escape, no character beyond ASCII: then no text in it has a control character."""
    return b"\\" not in text and text.isascii() and b"\x7f" not in text


def _decode_all(body: bytes, is_lines: bool) -> list[Plain] | None:
    try:
        return _one.decode_lines(body) if is_lines else _list.decode(body)
    except UNDECODABLE:
        return None


def _cut(body: bytes, is_lines: bool) -> Sequence[_Text] | None:
    if is_lines:
        return [line for line in body.splitlines() if line.strip()]
    try:
        return _raws.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _decode_one(raw: _Text, is_clean: bool) -> Plain | None:
    if not is_clean and not _is_clean(bytes(raw)):
        return None
    try:
        return _one.decode(raw)
    except UNDECODABLE:
        return None


def _columns_of(plains: Sequence[Plain]) -> _Columns:
    """The fields as columns, the time in micros (-1 when it is missing)."""
    if not plains:
        return {}
    columns = columns_of_rows(list(map(astuple, plains)))
    named = dict(zip(_FIELDS, columns, strict=True))
    moments = named["event_time"]
    if None in moments:
        moments = [_BEFORE if moment is None else moment for moment in moments]
    named["event_time"] = [
        since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds
        for since in [moment - _EPOCH for moment in moments]
    ]
    return named


def _faulty(columns: _Columns, count: int, times: range, redactor: Redactor) -> set[int]:
    """The places of events that the long way must read."""
    if not count:
        return set()
    faulty = _disagreeing(columns, count)
    for name in _REQUIRED:
        if not all(columns[name]):
            faulty |= _places_of({""}, columns[name], count)
    for name in (*_REQUIRED, "run_id"):
        if RESERVED_PREFIX in "\n".join(columns[name]):
            is_ours = [text.startswith(RESERVED_PREFIX) for text in columns[name]]
            faulty |= _places_of({True}, is_ours, count)
    for name in (*MACHINE_NAMES, "error_code", *_CHOICES):
        column = columns[name]
        bad = {value for value in set(column) if not _is_kept(name, value, redactor)}
        faulty |= _places_of(bad, column, count)
    moments = columns["event_time"]
    if min(moments) not in times or max(moments) not in times:
        bad = {moment for moment in moments if moment not in times}
        faulty |= _places_of(bad, moments, count)
    if columns["attrs"] != [None]:
        is_deep = [
            attributes is not None and _is_deep(attributes) for attributes in columns["attrs"]
        ]
        faulty |= _places_of({True}, is_deep, count)
    return faulty


def _places_of(values: Collection[Any], column: list[Any], count: int) -> set[int]:
    if not any(value in column for value in values):
        return set()
    return {place for place, value in enumerate(expand(column, count)) if value in values}


def _is_kept(name: str, value: str, redactor: Redactor) -> bool:
    if name in _CHOICES:
        return value in _CHOICES[name]
    if not value:
        return True
    if name == "error_code":
        return redactor.error_code(value, "") == value
    return value not in _LONG_TYPES and redactor.machine_name(value, "") == value


def _disagreeing(columns: _Columns, count: int) -> set[int]:
    """Where parts are more than the whole of which they are part."""
    found: set[int] = set()
    for whole, names in _PARTS.items():
        parts = [np.array(columns[name]) for name in names if columns[name] != [0]]
        if parts:
            is_more = np.broadcast_to(sum(parts) > np.array(columns[whole]), count)
            found.update(np.flatnonzero(is_more).tolist())
    return found


def _is_deep(attributes: dict[str, Any]) -> bool:
    try:
        flat_attributes({"attrs": attributes})
    except Refused:
        return True
    return False


def _batch(
    plains: Sequence[Plain], columns: _Columns, received_at: int, redactor: Redactor
) -> EventBatch:
    """Redact and digest what was found good; the events themselves are used up."""
    count = len(plains)
    if not count:
        return EMPTY
    has_attributes = columns["attrs"] != [None]
    columns["attrs"] = _redact_attributes(plains, redactor) if has_attributes else [""]
    if redactor.hash_user_ids:
        columns["user_id"] = _hash_users(plains, redactor)
    for plain, moment in zip(plains, expand(columns["event_time"], count), strict=True):
        plain.event_time = moment
    made = {
        **columns,
        "occurred_at": columns["event_time"],
        "received_at": [received_at],
        "content_digest": digests_of(plains),
        "reject_code": [""],
    }
    return EventBatch(count, [made[name] for name in EVENT_FIELDS])


def _redact_attributes(plains: Sequence[Plain], redactor: Redactor) -> list[str]:
    for plain in plains:
        redacted = redactor.attributes(plain.attrs or {}, plain.tenant_id)
        plain.attrs = redacted or None  # type: ignore[assignment]
    return shorten([plain.attrs or "" for plain in plains])


def _hash_users(plains: Sequence[Plain], redactor: Redactor) -> list[str]:
    for plain in plains:
        if plain.user_id:
            plain.user_id = redactor.hashed(plain.user_id, plain.tenant_id)
    return shorten([plain.user_id for plain in plains])
