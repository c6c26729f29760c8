"""Promotion: a name that used to land in attrs has become a field of its own.

Events received before that hold it in attrs only. Their batches in the log have fewer columns
than an event has now, because fields are only ever appended; completing such a batch fills
each promoted field from attrs, the same way whenever it is read, so a replay or a backfill
gives one answer. What redaction hid is not invented: the field then stays "not given".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.events.redaction import is_hidden
from tallystick.plumbing.log.columns import expand
from tallystick.plumbing.log.packing import Column, unpack


class Promotion(NamedTuple):
    """From schema version `since` on, `field` is what came as `key` in attrs before.

    `read` makes the field's value of the attribute's; it raises ValueError or TypeError
    when it cannot, and the field stays as it was.
    """

    field: str
    key: str
    since: int
    read: Callable[[Any], Any]


PROMOTIONS: tuple[Promotion, ...] = ()
"""Every promotion so far; entries are never removed."""

_EMPTY = Event(event_id="", event_type="", occurred_at=0, received_at=0, tenant_id="")
DEFAULTS: tuple[Any, ...] = tuple(getattr(_EMPTY, name) for name in EVENT_FIELDS)
"""What each field is when it was not given."""

_ATTRS = EVENT_FIELDS.index("attrs")


def fill_columns(
    columns: Sequence[Column],
    count: int,
    promotions: Sequence[Promotion] = PROMOTIONS,
    *,
    fields: Sequence[str] = EVENT_FIELDS,
) -> list[Column]:
    """Fill promoted fields of `count` events, as columns that an older version wrote.

    A field that the writer did not know is missing or None; where attrs do not say it, it
    stays None for the caller to default. A field that it knew is left alone.
    """
    filled = list(columns)
    for promotion in promotions:
        place = fields.index(promotion.field)
        filled += [[None]] * (place + 1 - len(filled))
        column = unpack(filled[place], count)
        if None in column:
            texts = expand(unpack(columns[_ATTRS], count), count)
            values = expand(column, count)
            filled[place] = [
                _promoted(promotion, read_attributes(text).get(promotion.key), None)
                if value is None
                else value
                for value, text in zip(values, texts, strict=True)
            ]
    return filled


def _promoted(promotion: Promotion, value: Any, default: Any) -> Any:
    if value is None or is_hidden(value):
        return default
    try:
        return promotion.read(value)
    except (ValueError, TypeError):
        return default


def read_attributes(text: str) -> dict[str, Any]:
    """The attributes that an event keeps.

    >>> read_attributes('{"region":"eu-1"}'), read_attributes("")
    ({'region': 'eu-1'}, {})
    """
    found = msgspec.json.decode(text) if text else {}
    return found if isinstance(found, dict) else {}
