"""What a backfill is: what was asked for, where it stands, and what a piece of it found."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from tallystick.analytics.corrections import Signed

EVENTS_PER_SECOND = 2_000
"""Events that a backfill examines a second unless it says otherwise. Each corrected event is
two more rows for the sink: 4,000 a second, a small part of what one sink takes in, so that
live events stay visible within their second."""

EVENTS_PER_SECOND_MAX = 50_000
"""The most that may be asked for: beyond it the reading itself would be the limit."""

EVENTS_PER_PIECE_MAX = 5_000
"""Events of one piece: one batch of corrections, decided and stored as a whole."""


class Status(StrEnum):
    """Where a backfill stands."""

    PLANNED = "planned"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    REVERTED = "reverted"


class BackfillRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for: facts with from_at <= occurred_at < to_at (micros), and why."""

    from_at: int
    to_at: int
    reason: str
    idempotency_key: str
    tenant_ids: tuple[str, ...] = ()
    """Empty: every tenant."""
    models: tuple[str, ...] = ()
    """Empty: every event, also those without a model."""
    rate_card_version: int = 0
    """0: what is in force, as known now."""
    is_dry_run: bool = False
    events_per_second_max: int = EVENTS_PER_SECOND
    reverts: str = ""
    """The backfill whose rows are to be inverted; then nothing else chooses."""


class Backfill(BackfillRequest, frozen=True, kw_only=True):
    """A backfill as it is stored."""

    backfill_id: str
    kind: str
    created_at: int
    created_by: str
    status: str
    ends: dict[int, int]
    """Log partition -> offset: facts below are meant. Empty until it begins."""
    cursor: list[Any]
    """The key of the last event examined; of a revert, the next offset."""
    pieces: int
    expected: int | None
    """How many events it will examine; None until its first piece."""
    examined: int
    corrected: int
    skipped: int
    changed_at: int
    failure: str


class ReportLine(NamedTuple):
    """What a piece found of one tenant and model; costs in USD/9, credits in CREDIT/6."""

    tenant_id: str
    model: str
    events: int
    corrected: int
    cost_units_before: int
    cost_units_after: int
    credit_units_before: int
    credit_units_after: int


class ReportRun(NamedTuple):
    """By how much a piece corrected one run: after minus before."""

    tenant_id: str
    charge_key: str
    corrected: int
    cost_units: int
    credit_units: int


class Piece(NamedTuple):
    """A piece of work, decided and not yet stored."""

    rows: list[Signed]
    lines: list[ReportLine]
    runs: list[ReportRun]
    examined: int
    skipped: int
    cursor: list[Any]
    is_last: bool
