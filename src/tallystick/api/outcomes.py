"""How the ledger's outcomes are answered: what was posted, or which limit declined it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.problems import problem_content
from tallystick.api.requests import credits_text, respond, tenant_of
from tallystick.api.services import Services
from tallystick.clock import format_time
from tallystick.enforcement.authorization import told
from tallystick.enforcement.budgets.showing import show_decisions
from tallystick.errors import TallystickError
from tallystick.ledger import Outcome
from tallystick.ledger import Request as LedgerRequest


async def apply_request(services: Services, http: Request, request: LedgerRequest) -> Response:
    """Apply one request of the ledger for who asks, and answer with what became of it."""
    outcome = await services.committer.apply(request, tenant_id=tenant_of(http))
    return await answer_outcome(services, told(outcome))


async def answer_outcome(services: Services, outcome: Outcome) -> Response:
    """Answer with what became of work, and of a decline with what the budget still has."""
    if outcome.status == "declined":
        shown = await decisions(services, [outcome])
        content = declined_json(outcome, shown)
        media_type = "application/problem+json"
        return respond(content, content["status"], media_type=media_type)
    return respond(outcome_json(outcome), 201 if outcome.kind in _MADE else 200)


async def decisions(
    services: Services, answers: Sequence[Outcome | TallystickError]
) -> Mapping[str, dict[str, Any]]:
    """Windows of budgets that declined some of these, by id."""
    limit_ids = {one.limit_id for one in answers if isinstance(one, Outcome) and one.limit_id}
    if not limit_ids:
        return {}
    return await asyncio.to_thread(show_decisions, services.budgets, sorted(limit_ids))


def item_json(
    answer: Outcome | TallystickError, budgets: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Show what became of one item of a batch."""
    if isinstance(answer, TallystickError):
        return problem_content(
            answer.http_status,
            answer.code,
            answer.message,
            retryable=answer.retryable,
            field=answer.field,
        )
    return declined_json(answer, budgets) if answer.status == "declined" else outcome_json(answer)


_STATUS = {
    "hold": "held",
    "start": "held",
    "extend": "held",
    "lease": "leased",
    "capture": "captured",
    "settle": "captured",
    "release": "released",
    "report": "reported",
    "return": "returned",
    "charge": "posted",
    "grant": "posted",
    "refund": "posted",
}
_MADE = ("hold", "lease", "charge", "grant", "refund")
_ID_NAME = {"charge": "charge_id", "grant": "grant_id", "refund": "refund_id"}


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Show what was posted."""
    kind = outcome.kind
    answer: dict[str, Any] = {
        "status": _STATUS[kind],
        "operation_id": outcome.operation_id,
        "account_id": outcome.account_id,
        "amount": credits_text(outcome.units),
        "available": credits_text(outcome.available),
    }
    if kind in _ID_NAME:
        answer[_ID_NAME[kind]] = outcome.operation_id
    if outcome.hold_id:
        answer["lease_id" if outcome.epoch and kind in _LEASED else "hold_id"] = outcome.hold_id
    if kind in _LEASED:
        answer["epoch"] = outcome.epoch
    if kind in _CAPTURED:
        answer["charge_id"] = outcome.operation_id
        answer["captured"] = credits_text(outcome.moved)
    if kind in _CAPTURED or outcome.shortfall:
        answer["shortfall"] = credits_text(outcome.shortfall)
    if outcome.due_at is not None:
        answer["expires_at"] = format_time(outcome.due_at)
    if kind in ("hold", "lease"):
        answer["lots"] = [
            {"lot_id": lot_id, "amount": credits_text(units)} for lot_id, units in outcome.lots
        ]
    if outcome.lot_id:
        answer["lot_id"] = outcome.lot_id
    return answer


_LEASED = ("lease", "report", "return", "extend")
_CAPTURED = ("capture", "settle", "report", "return")
_DECLINED = {
    "credit_exhausted": (402, "the account has not enough credit; nothing was taken"),
    "budget_exceeded": (402, "a limit that the work falls under has no room; nothing was taken"),
    "capture_above_hold": (409, "the capture is above its hold; the hold stays open"),
    "batch_declined": (402, "another item of the batch was declined; nothing was taken"),
}


def declined_json(
    outcome: Outcome, budgets: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """Show a decline: a problem that says which limit decided and whether waiting can help.

    `budgets` are windows by id: the one that decided says what it still has.
    """
    budget = (budgets or {}).get(outcome.limit_id)
    status, detail = _DECLINED[outcome.code]
    content = problem_content(status, outcome.code, detail, decided_by=outcome.decided_by)
    return {
        **content,
        "outcome": "declined",
        "retry": outcome.retry,
        "operation_id": outcome.operation_id,
        "account_id": outcome.account_id,
        "amount": credits_text(outcome.units),
        "available": budget["available"] if budget else credits_text(outcome.available),
        **({"budget": budget, "resets_at": budget["resets_at"]} if budget else {}),
    }
