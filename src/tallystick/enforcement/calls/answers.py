"""What callers of calls are told: receipts, and refusals that say what decided. Pure."""

from __future__ import annotations

from tallystick.enforcement.calls.details import CallDetails
from tallystick.enforcement.calls.model import CallPermit, CallReceipt, CallRefused
from tallystick.errors import Blocked, TooManyRequests
from tallystick.ledger import Outcome
from tallystick.rating import Rated


def receipt_of(
    permit: CallPermit, event_id: str, rated: Rated, captured: Outcome | None
) -> CallReceipt:
    """The receipt of a capture; None: its hold had ended otherwise."""
    return CallReceipt(
        hold_id=permit.hold_id,
        event_id=event_id,
        cost_usd_units=rated.cost_units,
        cost_quality=rated.cost_quality,
        credit_units=rated.credit_units,
        charged_units=captured.moved if captured else 0,
        shortfall_units=captured.shortfall if captured else 0,
        available_units=captured.available if captured else permit.available_units,
        is_posted=captured is not None,
    )


def projection_of(permit: CallPermit, event_id: str, rated: Rated) -> CallReceipt:
    """The receipt of a call whose capture nobody waits for."""
    return CallReceipt(
        hold_id=permit.hold_id,
        event_id=event_id,
        cost_usd_units=rated.cost_units,
        cost_quality=rated.cost_quality,
        credit_units=rated.credit_units,
        charged_units=rated.credit_units,
        shortfall_units=0,
        available_units=permit.available_units + permit.credit_units - rated.credit_units,
        is_posted=False,
    )


def refusal_of(outcome: Outcome, details: CallDetails | None) -> CallRefused:
    """A decline of the ledger."""
    what = "credit" if outcome.code == "credit_exhausted" else "room"
    return CallRefused(
        f"{outcome.decided_by} has not enough {what}; nothing was taken",
        code=outcome.code,
        decided_by=outcome.decided_by,
        retry=outcome.retry,
        operation_id=outcome.operation_id,
        available_units=outcome.available,
        credit_units=outcome.units,
        usd_units=details.usd_units if details else 0,
    )


def blocked(error: Blocked) -> CallRefused:
    """What a mitigation forbids."""
    return CallRefused(error.message, code=error.code, decided_by=error.decided_by)


def too_many(error: TooManyRequests) -> CallRefused:
    """What is over a rate."""
    return CallRefused(
        error.message,
        code=error.code,
        decided_by=error.decided_by,
        retry="wait",
        http_status=429,
        retry_after_seconds=error.retry_after_seconds,
    )
