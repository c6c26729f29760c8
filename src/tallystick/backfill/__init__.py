"""Backfills: facts of a range are rated again, and what differs is corrected by deltas.

Owns what was asked for and why, how far it is, its report before and after, and its revert.
Never changes a fact, a charge or a balance: it appends signed rows to the log of corrections,
and the followers converge. Keeps state and reports in PostgreSQL (schema `backfill`). Time:
facts by `occurred_at`, prices as known when the backfill was made.
"""

from tallystick.backfill.model import EVENTS_PER_SECOND, Backfill, BackfillRequest, Status
from tallystick.backfill.pieces import Pieces
from tallystick.backfill.service import Backfills

__all__ = ["EVENTS_PER_SECOND", "Backfill", "BackfillRequest", "Backfills", "Pieces", "Status"]
