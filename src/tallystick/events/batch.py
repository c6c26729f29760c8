"""A batch of canonical events as columns, with the identity of each."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from tallystick.events.model import EVENT_FIELDS, Event
from tallystick.plumbing.log.columns import (
    Columns,
    columns_of_rows,
    concat,
    expand,
    rows_of_columns,
)

Identity = tuple[bytes, bytes]
"""(key, content digest) of one delivery."""

_TENANT = EVENT_FIELDS.index("tenant_id")
_EVENT_ID = EVENT_FIELDS.index("event_id")
_DIGEST = EVENT_FIELDS.index("content_digest")
_fields_of = attrgetter(*EVENT_FIELDS)


class EventBatch(NamedTuple):
    """Events in the order in which they came."""

    size: int
    columns: Columns
    """In the order of EVENT_FIELDS."""

    def values(self, field: str) -> list[Any]:
        """All values of one field."""
        return expand(self.columns[EVENT_FIELDS.index(field)], self.size)

    def events(self) -> list[Event]:
        """The events one by one."""
        return msgspec.convert(rows_of_columns(self.columns, self.size), list[Event])

    def reorder(self, order: Sequence[int]) -> EventBatch:
        """The same events in another order."""
        columns = [
            column if len(column) == 1 else [column[index] for index in order]
            for column in self.columns
        ]
        return EventBatch(self.size, columns)


EMPTY = EventBatch(0, [])


def batch_of(events: Sequence[Event]) -> EventBatch:
    """Make a batch of single events."""
    if not events:
        return EMPTY
    return EventBatch(len(events), columns_of_rows([_fields_of(event) for event in events]))


def join_batches(batches: Sequence[EventBatch]) -> EventBatch:
    """Put batches after each other."""
    filled = [batch for batch in batches if batch.size]
    if not filled:
        return EMPTY
    count = sum(batch.size for batch in filled)
    return EventBatch(count, concat([(batch.size, batch.columns) for batch in filled]))


def identities_of(columns: Columns, count: int) -> list[Identity]:
    """The identity of each event: tenant and id, whatever its time or content."""
    tenants, digests = columns[_TENANT], columns[_DIGEST]
    ids = expand(columns[_EVENT_ID], count)
    if len(tenants) == 1:
        prefix = f"{tenants[0]}\0"
        keys = [(prefix + event_id).encode() for event_id in ids]
    else:
        keys = [
            f"{tenant}\0{event_id}".encode() for tenant, event_id in zip(tenants, ids, strict=True)
        ]
    return list(zip(keys, expand(digests, count), strict=True))
