"""Audit's words."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, NamedTuple, TypeGuard, get_type_hints


class Record(NamedTuple):
    """One request and what became of it; `at` in micros, `target` what its path names."""

    at: int
    tenant_id: str
    subject: str
    service_id: str
    cost_center: str
    method: str
    route: str
    target: str
    status: int
    decision: str
    """allowed, denied or failed"""
    code: str
    remote: str
    requests: int
    """More than 1 where refusals without a key were folded by address."""
    duration_us: int


TEXTS = tuple(name for name, kind in get_type_hints(Record).items() if kind is str)
"""The fields that are texts; the others are whole numbers."""

_texts_of = attrgetter(*TEXTS)


def storable(record: Record) -> Record:
    """The record as PostgreSQL can hold it: one NUL from a path would stop the whole trail."""
    if "".join(_texts_of(record)).isprintable():
        return record
    shown: Any = [_shown(one) if _is_text(one) else one for one in record]
    return Record(*shown)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _shown(text: str) -> str:
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def decision_of(status: int) -> str:
    """What a status says: denied is who may not, or what a limit forbids.

    >>> decision_of(201), decision_of(402), decision_of(500)
    ('allowed', 'denied', 'failed')
    """
    if status < 400:
        return "allowed"
    return "denied" if status in (401, 402, 403, 429) else "failed"
