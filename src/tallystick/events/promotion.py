"""Promotion: a name that used to land in attrs has become a field of its own.

Facts received before that hold it in attrs only. Their arrays in the log are shorter than
the event is now, because fields are only ever appended; completing such an array fills each
promoted field from attrs, the same way whenever it is read, so a replay or a backfill gives
one answer. What redaction hid is not invented: the field then stays "not given".

The digest that tells a repeat from a conflict must not move when fields are added, else a
producer's retry across an upgrade would look like other content: see `digested`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.events.redaction import is_hidden

Row = list[Any]
"""An event as the log holds it: values in the order of EVENT_FIELDS."""


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

DIGESTED_FIELDS = EVENT_FIELDS[: EVENT_FIELDS.index("reject_code") + 1]
"""The event of schema version 1: the fields that the content digest was made of first."""

DEFAULTS: tuple[Any, ...] = tuple(
    msgspec.to_builtins(
        Event(event_id="", event_type="", occurred_at=0, received_at=0, tenant_id=""),
        builtin_types=(bytes,),
    )
)
"""What each field is when it was not given."""

_ATTRS = EVENT_FIELDS.index("attrs")


def complete_row(
    row: Row,
    promotions: Sequence[Promotion] = PROMOTIONS,
    *,
    fields: Sequence[str] = EVENT_FIELDS,
    defaults: Sequence[Any] = DEFAULTS,
) -> None:
    """Bring an array that an older version wrote to today's length, in place.

    A field that the array already had is left alone: it was canonical when it was written.
    """
    known = len(row)
    if known >= len(fields):
        return
    row.extend(defaults[known:])
    attributes = read_attributes(row[_ATTRS]) if promotions else {}
    for promotion in promotions:
        place = fields.index(promotion.field)
        if place >= known and promotion.key in attributes:
            row[place] = _promoted(promotion, attributes[promotion.key], row[place])


def fill_columns(
    columns: list[list[Any]],
    count: int,
    promotions: Sequence[Promotion] = PROMOTIONS,
    *,
    fields: Sequence[str] = EVENT_FIELDS,
) -> list[list[Any]]:
    """The same for `count` events as columns: one list a field, or one value for all of them.

    A field that the writer did not know is missing or None; where attrs do not say it, it
    stays None for the caller to default.
    """
    filled = list(columns)
    for promotion in promotions:
        place = fields.index(promotion.field)
        filled += [[None]] * (place + 1 - len(filled))
        column = filled[place]
        if None in column:
            texts = columns[_ATTRS] * (count if len(columns[_ATTRS]) == 1 else 1)
            values = column * (count if len(column) == 1 else 1)
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


def digested(event: Event) -> object:
    """What the content digest of an event is made of, ready to be encoded."""
    if len(EVENT_FIELDS) == len(DIGESTED_FIELDS):
        return event  # the same bytes, without taking it apart
    return digest_form(msgspec.structs.astuple(event))


def digest_form(values: Sequence[Any], fields: Sequence[str] = EVENT_FIELDS) -> Sequence[Any]:
    """What the content digest is made of: version 1's fields, then what is given of newer ones.

    An event that uses no newer field has the digest that it had before they were added.
    """
    known = len(DIGESTED_FIELDS)
    if len(fields) == known:
        return values
    newer = zip(fields[known:], values[known:], strict=True)
    return [*values[:known], *([name, value] for name, value in newer if value)]
