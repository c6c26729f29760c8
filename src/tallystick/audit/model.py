"""Audit's words."""

from __future__ import annotations

from typing import NamedTuple


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


def decision_of(status: int) -> str:
    """What a status says: denied is who may not, or what a limit forbids.

    >>> decision_of(201), decision_of(402), decision_of(500)
    ('allowed', 'denied', 'failed')
    """
    if status < 400:
        return "allowed"
    return "denied" if status in (401, 402, 403, 429) else "failed"
