"""Routes of holds and captures: what decides whether work may start, and settles it.

These are the busiest routes. They answer once the decision is durable; many requests share
one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.asks import actual_of, work_ask
from tallystick.api.outcomes import answer_outcome, apply_request, decisions, item_json
from tallystick.api.requests import (
    credits_of,
    credits_text,
    idempotency_key,
    principal_of,
    read_json,
    respond,
    tenant_of,
)
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.bounds import (
    ATOMIC_ITEMS_MAX,
    BATCH_ITEMS_MAX,
    BODY_BYTES_MAX,
)
from tallystick.clock import format_time
from tallystick.enforcement.authorization import Ask, actuals_of, capture_request
from tallystick.errors import InvalidInput, TallystickError
from tallystick.ledger import (
    CaptureRequest,
    ExtendRequest,
    Hold,
    ReleaseRequest,
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
        await _own_hold_id(services, request),
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
        hold_id=await _own_hold_id(services, request),
        reason=body.reason,
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return await apply_request(services, request, release)


async def post_start(services: Services, request: Request) -> Response:
    """Say that the work has begun."""
    body = await read_json(request, StartBody, allow_empty=True)
    start = StartRequest(
        hold_id=await _own_hold_id(services, request),
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return await apply_request(services, request, start)


async def post_extend(services: Services, request: Request) -> Response:
    """Give a hold more time, more credit, or both."""
    return await extend(services, request, request.path_params["hold_id"])


async def extend(services: Services, request: Request, hold_id: str) -> Response:
    """Give a hold or lease more time, more credit, or both."""
    body = await read_json(request, ExtendBody)
    await services.calls.endings.check(hold_id, principal_of(request))
    asked = ExtendRequest(
        hold_id=hold_id,
        ttl_seconds=body.ttl_seconds,
        units=credits_of(body.amount),
        actuals=actuals_of(actual_of(body)),
        epoch=body.epoch,
        idempotency_key=idempotency_key(request, body.idempotency_key),
    )
    return await apply_request(services, request, asked)


async def _own_hold_id(services: Services, request: Request) -> str:
    """The hold that the path names; raises Forbidden for a gateway's call."""
    hold_id: str = request.path_params["hold_id"]
    await services.calls.endings.check(hold_id, principal_of(request))
    return hold_id


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
    captured = [one.hold_id for one in requests if isinstance(one, CaptureRequest)]
    refused = await services.calls.endings.find_forbidden(captured, principal_of(request))
    if refused:
        requests = [
            refused.get(one.hold_id, one) if isinstance(one, CaptureRequest) else one
            for one in requests
        ]
    answers = await services.authorizer.apply_batch(
        requests, all_or_nothing=all_or_nothing, tenant_id=tenant_of(request)
    )
    parts: list[bytes] = []
    budgets = await decisions(services, answers)
    for start in range(0, len(answers), _SLICE):
        shown = [item_json(answer, budgets) for answer in answers[start : start + _SLICE]]
        parts.append(msgspec.json.encode(shown)[1:-1])
        await asyncio.sleep(0)
    body = b'{"results":[' + b",".join(parts) + b"]}"
    return Response(body, media_type="application/json")


def _read_item(
    item: msgspec.Raw, make: Callable[[msgspec.Raw], Ask | LedgerRequest]
) -> Ask | LedgerRequest | TallystickError:
    try:
        return make(item)
    except TallystickError as error:
        return error
    except (msgspec.DecodeError, RecursionError) as error:
        return InvalidInput(f"item: {error}", code="bad_item")


_SLICE = 100
"""Items of a batch that are handled without a pause."""


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

_KEY = {"idempotency_key": "order-1001"}
_HELD = {
    "hold_id": "0190…",
    "status": "held",
    "expires_at": "2026-11-20T09:35:00Z",
    "available": "87.5",
    "lots": [{"lot_id": "0190…", "amount": "12.5"}],
}
_CAPTURED = {"charge_id": "0190…", "status": "captured", "captured": "9.2", "shortfall": "0"}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "POST",
        "/v1/holds",
        post_hold,
        "Set credit aside before work starts; declined with 402 when it does not fit",
        _HELD,
        201,
        HoldBody,
        {"account_id": "acme", "amount": "12.5", "run_id": "run-42", **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/holds/{hold_id}/capture",
        post_capture,
        "Charge what the work cost, end the hold and free the rest",
        _CAPTURED,
        200,
        CaptureBody,
        {"amount": "9.2", **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/holds/{hold_id}/release",
        post_release,
        "End a hold without a charge",
        {"hold_id": "0190…", "status": "released", "available": "100"},
        200,
        ReleaseBody,
        _KEY,
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/holds/{hold_id}/start",
        post_start,
        "Say that the work has begun: the hold never frees itself from now on",
        {"hold_id": "0190…", "status": "held"},
        200,
        StartBody,
        _KEY,
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/holds/{hold_id}/extend",
        post_extend,
        "Give a hold more time, more credit, or both",
        _HELD,
        200,
        ExtendBody,
        {"ttl_seconds": 300, "amount": "5", **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "GET",
        "/v1/holds/{hold_id}",
        get_hold,
        "A hold or lease, open or ended",
        {"hold_id": "0190…", "status": "held", "held": "12.5", "captured": "0"},
        needs="ledger:read",
    ),
    RouteEntry(
        "POST",
        "/v1/holds:batch",
        post_holds_batch,
        "Set credit aside for many; each on its own, or all or nothing",
        {"results": [_HELD]},
        body=HoldsBody,
        body_example={"items": [{"account_id": "acme", "amount": "1", **_KEY}]},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/captures:batch",
        post_captures_batch,
        "Settle many holds; each on its own, or all or nothing",
        {"results": [_CAPTURED]},
        body=CapturesBody,
        body_example={"items": [{"hold_id": "0190…", "amount": "1", **_KEY}]},
        needs="holds:write",
    ),
)
"""Entries of the table of routes."""
