"""Audit's words."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeGuard


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


def storable(record: Record) -> Record:
    """The record as PostgreSQL can hold it: one NUL from a path would stop the whole trail."""
    if all(map(str.isprintable, filter(_is_text, record))):
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
