"""Routes of holds, captures and leases: what decides whether work may start, and settles it.

These are the busiest routes. They answer once the decision is durable; many requests share
one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.asks import actual_of, attribution_of, work_ask
from tallystick.api.problems import problem_content
from tallystick.api.requests import (
    credits_of,
    credits_text,
    idempotency_key,
    read_json,
    respond,
    tenant_of,
)
from tallystick.api.services import Services
from tallystick.bounds import (
    ATOMIC_ITEMS_MAX,
    BATCH_ITEMS_MAX,
    BODY_BYTES_MAX,
)
from tallystick.clock import format_time
from tallystick.enforcement.authorization import Ask, actuals_of, capture_request, told
from tallystick.enforcement.budgets.showing import show_decisions
from tallystick.errors import InvalidInput, TallystickError
from tallystick.ledger import (
    ExtendRequest,
    Hold,
    LeaseRequest,
    Outcome,
    ReleaseRequest,
    ReportRequest,
    ReturnRequest,
    StartRequest,
)
from tallystick.ledger import Request as LedgerRequest


class HoldBody(msgspec.Struct):
    """Body of POST /v1/holds; `started`: the work begins now, so the hold never frees itself."""

    account_id: str
    amount: str
    run_id: str = ""
    cost_usd: str | None = None
    tokens: int | None = None
    attribution: dict[str, str] = {}
    ttl_seconds: int = 300
    started: bool = False
    idempotency_key: str = ""


class HoldsBody(msgspec.Struct):
    """Body of POST /v1/holds:batch."""

    items: list[msgspec.Raw]
    all_or_nothing: bool = False


class CaptureBody(msgspec.Struct):
    """Body of POST /v1/holds/{hold_id}/capture."""

    amount: str
    cost_usd: str | None = None
    tokens: int | None = None
    reason: str = ""
    idempotency_key: str = ""


class CaptureItem(msgspec.Struct):
    """One item of POST /v1/captures:batch."""

    hold_id: str
    amount: str
    cost_usd: str | None = None
    tokens: int | None = None
    reason: str = ""
    idempotency_key: str = ""


class CapturesBody(msgspec.Struct):
    """Body of POST /v1/captures:batch."""

    items: list[msgspec.Raw]
    all_or_nothing: bool = False


class ReleaseBody(msgspec.Struct):
    """Body of POST /v1/holds/{hold_id}/release."""

    reason: str = ""
    idempotency_key: str = ""


class StartBody(msgspec.Struct):
    """Body of POST /v1/holds/{hold_id}/start."""

    idempotency_key: str = ""


class ExtendBody(msgspec.Struct):
    """Body of POST /v1/holds/{hold_id}/extend and /v1/leases/{lease_id}/extend."""

    ttl_seconds: int = 0
    amount: str = "0"
    cost_usd: str | None = None
    tokens: int | None = None
    epoch: int | None = None
    idempotency_key: str = ""


class LeaseBody(msgspec.Struct):
    """Body of POST /v1/leases."""

    account_id: str
    amount: str
    ttl_seconds: int = 60
    worker: str = ""
    attribution: dict[str, str] = {}
    idempotency_key: str = ""


class ReportBody(msgspec.Struct):
    """Body of POST /v1/leases/{lease_id}/report and /return: `used` is the total so far."""

    used: str
    epoch: int
    idempotency_key: str = ""


async def post_hold(services: Services, request: Request) -> Response:
    """Set credit aside, or decline with 402."""
    body = await read_json(request, HoldBody)
    ask = hold_ask(request, body, idempotency_key(request, body.idempotency_key))
    return await answer_outcome(services, await services.authorizer.hold(ask))


async def post_holds_batch(services: Services, request: Request) -> Response:
    """Set credit aside for many pieces of work."""
    body = await read_json(request, HoldsBody, BODY_BYTES_MAX)

    def hold_item(item: msgspec.Raw) -> Ask:
        found = _hold_decoder.decode(item)
        return hold_ask(request, found, found.idempotency_key)

    return await _apply_batch(services, request, body.items, body.all_or_nothing, hold_item)


async def get_hold(services: Services, request: Request) -> Response:
    """Show a hold or lease, open or ended."""
    hold_id = request.path_params["hold_id"]
    hold = await asyncio.to_thread(services.ledger.load_hold, hold_id, tenant_id=tenant_of(request))
    return respond(hold_json(hold))


async def post_capture(services: Services, request: Request) -> Response:
    """Charge what the work cost and free the rest."""
    body = await read_json(request, CaptureBody)
    outcome = await services.authorizer.capture(
        request.path_params["hold_id"],
        actual_of(body),
        reason=body.reason,
        idempotency_key=idempotency_key(request, body.idempotency_key),
        tenant_id=tenant_of(request),
    )
    return await answer_outcome(services, outcome)


async def post_captures_batch(services: Services, request: Request) -> Response:
    """Settle many holds."""
    body = await read_json(request, CapturesBody, BODY_BYTES_MAX)
    return await _apply_batch(services, request, body.items, body.all_or_nothing, _capture_item)


async def post_release(services: Services, request: Request) -> Response:
    """Free a hold without a charge."""
    body = await read_json(request, ReleaseBody, allow_empty=True)
    release = ReleaseRequest(
        hold_id=request.path_params["hold_id"],
        reason=body.reason,
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return await apply_request(services, request, release)


async def post_start(services: Services, request: Request) -> Response:
    """Say that the work has begun."""
    body = await read_json(request, StartBody, allow_empty=True)
    start = StartRequest(
        hold_id=request.path_params["hold_id"],
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return await apply_request(services, request, start)


async def post_extend(services: Services, request: Request) -> Response:
    """Give a hold or lease more time, more credit, or both."""
    body = await read_json(request, ExtendBody)
    extend = ExtendRequest(
        hold_id=request.path_params.get("hold_id") or request.path_params["lease_id"],
        ttl_seconds=body.ttl_seconds,
        units=credits_of(body.amount),
        actuals=actuals_of(actual_of(body)),
        epoch=body.epoch,
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return await apply_request(services, request, extend)


async def post_lease_extend(services: Services, request: Request) -> Response:
    """Give a lease more time, more credit, or both, to who knows its epoch."""
    return await post_extend(services, request)


async def post_lease(services: Services, request: Request) -> Response:
    """Lend a block of credit to a worker."""
    body = await read_json(request, LeaseBody)
    lease = LeaseRequest(
        account_id=body.account_id,
        units=credits_of(body.amount),
        ttl_seconds=body.ttl_seconds,
        worker=body.worker,
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    attribution = attribution_of(request, body.attribution)
    outcome = await services.authorizer.lease(lease, attribution, tenant_id=tenant_of(request))
    return await answer_outcome(services, outcome)


async def post_report(services: Services, request: Request) -> Response:
    """Charge what a worker used of its lease so far."""
    body = await read_json(request, ReportBody)
    report = ReportRequest(
        lease_id=request.path_params["lease_id"],
        used_units=credits_of(body.used, "used"),
        epoch=body.epoch,
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return await apply_request(services, request, report)


async def post_return(services: Services, request: Request) -> Response:
    """Charge what was used of a lease and free the rest."""
    body = await read_json(request, ReportBody)
    give_back = ReturnRequest(
        lease_id=request.path_params["lease_id"],
        used_units=credits_of(body.used, "used"),
        epoch=body.epoch,
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return await apply_request(services, request, give_back)


def hold_ask(request: Request, body: HoldBody, key: str) -> Ask:
    """The ask of a hold."""
    return work_ask(request, body, key, ttl_seconds=body.ttl_seconds, has_started=body.started)


def _capture_item(item: msgspec.Raw) -> LedgerRequest:
    body = _capture_decoder.decode(item)
    return capture_request(
        body.hold_id,
        actual_of(body),
        reason=body.reason,
        idempotency_key=body.idempotency_key,
    )


_hold_decoder = msgspec.json.Decoder(HoldBody)
_capture_decoder = msgspec.json.Decoder(CaptureItem)


async def apply_request(services: Services, http: Request, request: LedgerRequest) -> Response:
    """Apply one request of the ledger for who asks, and answer with what became of it."""
    outcome = await services.committer.apply(request, tenant_id=tenant_of(http))
    return await answer_outcome(services, told(outcome))


async def answer_outcome(services: Services, outcome: Outcome) -> Response:
    """Answer with what became of work, and of a decline with what the budget still has."""
    if outcome.status == "declined":
        shown = await _decisions(services, [outcome])
        content = declined_json(outcome, shown)
        media_type = "application/problem+json"
        return respond(content, content["status"], media_type=media_type)
    return respond(outcome_json(outcome), 201 if outcome.kind in _MADE else 200)


async def _apply_batch(
    services: Services,
    request: Request,
    items: Sequence[msgspec.Raw],
    all_or_nothing: bool,
    make: Callable[[msgspec.Raw], Ask | LedgerRequest],
) -> Response:
    """Read, apply and answer a batch in slices, so that single requests pass between them."""
    limit = ATOMIC_ITEMS_MAX if all_or_nothing else BATCH_ITEMS_MAX
    if not 0 < len(items) <= limit:
        raise InvalidInput(f"a batch has 1 to {limit} items", code="batch_too_large", field="items")
    requests: list[Ask | LedgerRequest | TallystickError] = []
    for start in range(0, len(items), _SLICE):
        requests += [_read_item(item, make) for item in items[start : start + _SLICE]]
        await asyncio.sleep(0)
    answers = await services.authorizer.apply_batch(
        requests, all_or_nothing=all_or_nothing, tenant_id=tenant_of(request)
    )
    parts: list[bytes] = []
    budgets = await _decisions(services, answers)
    for start in range(0, len(answers), _SLICE):
        shown = [_item_json(answer, budgets) for answer in answers[start : start + _SLICE]]
        parts.append(msgspec.json.encode(shown)[1:-1])
        await asyncio.sleep(0)
    body = b'{"results":[' + b",".join(parts) + b"]}"
    return Response(body, media_type="application/json")


async def _decisions(
    services: Services, answers: Sequence[Outcome | TallystickError]
) -> Mapping[str, dict[str, Any]]:
    """Windows of budgets that declined some of these, by id."""
    limit_ids = {one.limit_id for one in answers if isinstance(one, Outcome) and one.limit_id}
    if not limit_ids:
        return {}
    return await asyncio.to_thread(show_decisions, services.budgets, sorted(limit_ids))


def _read_item(
    item: msgspec.Raw, make: Callable[[msgspec.Raw], Ask | LedgerRequest]
) -> Ask | LedgerRequest | TallystickError:
    try:
        return make(item)
    except TallystickError as error:
        return error
    except (msgspec.DecodeError, RecursionError) as error:
        return InvalidInput(f"item: {error}", code="bad_item")


def _item_json(
    answer: Outcome | TallystickError, budgets: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    if isinstance(answer, TallystickError):
        return problem_content(
            answer.http_status,
            answer.code,
            answer.message,
            retryable=answer.retryable,
            field=answer.field,
        )
    return declined_json(answer, budgets) if answer.status == "declined" else outcome_json(answer)


_SLICE = 100
"""Items of a batch that are handled without a pause."""

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


def hold_json(hold: Hold) -> dict[str, Any]:
    """Show a hold or lease."""
    return {
        "hold_id": hold.hold_id,
        "account_id": hold.account_id,
        "kind": hold.kind,
        "status": _SHOWN.get(hold.status, hold.status),
        "run_id": hold.run_id,
        "held": credits_text(hold.held),
        "captured": credits_text(hold.drawn),
        "started": hold.has_started,
        "expires_at": format_time(hold.due_at) if hold.due_at is not None else None,
        "epoch": hold.epoch,
    }


_SHOWN = {
    "capture": "captured",
    "release": "released",
    "hold_expiry": "expired",
    "resolve": "resolved",
    "return": "returned",
}
