"""Routes of leases: blocks of credit lent to workers that authorize by themselves."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.asks import attribution_of
from tallystick.api.hold_routes import ExtendBody, extend
from tallystick.api.outcomes import answer_outcome, apply_request
from tallystick.api.requests import credits_of, idempotency_key, read_json, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.ledger import LeaseRequest, ReportRequest, ReturnRequest


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


async def post_lease_extend(services: Services, request: Request) -> Response:
    """Give a lease more time, more credit, or both, to who knows its epoch."""
    return await extend(services, request, request.path_params["lease_id"])


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


_KEY = {"idempotency_key": "order-1001"}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "POST",
        "/v1/leases",
        post_lease,
        "Lend a block of credit to a worker that authorizes by itself",
        {"lease_id": "0190…", "epoch": 1, "status": "leased"},
        201,
        LeaseBody,
        {"account_id": "acme", "amount": "50", "ttl_seconds": 60, "worker": "w-1", **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/leases/{lease_id}/report",
        post_report,
        "Charge what a worker used of its lease so far, in all",
        {"lease_id": "0190…", "status": "reported", "captured": "7"},
        200,
        ReportBody,
        {"used": "7", "epoch": 1, **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/leases/{lease_id}/extend",
        post_lease_extend,
        "Give a lease more time, more credit, or both; the epoch fences off a lost worker",
        {"lease_id": "0190…", "status": "held", "epoch": 1},
        200,
        ExtendBody,
        {"ttl_seconds": 60, "amount": "10", "epoch": 1, **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/leases/{lease_id}/return",
        post_return,
        "Charge what was used of a lease in all and free the rest",
        {"lease_id": "0190…", "status": "returned", "captured": "3"},
        200,
        ReportBody,
        {"used": "10", "epoch": 1, **_KEY},
        needs="holds:write",
    ),
)
"""Entries of the table of routes."""
