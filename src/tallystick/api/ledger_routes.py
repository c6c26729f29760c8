"""Routes of the ledger: accounts, grants, charges, refunds, balance, entries."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.asks import work_ask
from tallystick.api.outcomes import answer_outcome, apply_request
from tallystick.api.requests import (
    credits_of,
    credits_text,
    idempotency_key,
    read_json,
    read_limit,
    read_moment,
    respond,
    tenant_of,
)
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.clock import format_time
from tallystick.ledger import (
    Account,
    Balance,
    EntryView,
    GrantRequest,
    RefundRequest,
)


class AccountBody(msgspec.Struct):
    """Body of PUT /v1/accounts/{account_id}; overage_limit null means no limit.

    `tenant_id` may be left out by who belongs to one.
    """

    tenant_id: str = ""
    overage_limit: str | None = "0"
    capture_policy: str = "cap"
    unknown_policy: str = "capture"


class GrantBody(msgspec.Struct):
    """Body of POST /v1/grants."""

    account_id: str
    amount: str
    source: str = "topup"
    priority: int = 100
    expires_at: str | None = None
    idempotency_key: str = ""


class ChargeBody(msgspec.Struct):
    """Body of POST /v1/charges; `after_the_fact`: never declined, the rest is shortfall."""

    account_id: str
    amount: str
    run_id: str = ""
    reason: str = ""
    after_the_fact: bool = False
    cost_usd: str | None = None
    tokens: int | None = None
    attribution: dict[str, str] = {}
    idempotency_key: str = ""


class RefundBody(msgspec.Struct):
    """Body of POST /v1/refunds: by charge_id, or by tenant_id and run_id."""

    charge_id: str | None = None
    tenant_id: str = ""
    run_id: str | None = None
    amount: str | None = None
    reason: str = ""
    idempotency_key: str = ""


async def put_account(services: Services, request: Request) -> Response:
    """Create an account or change its settings."""
    body = await read_json(request, AccountBody)
    limit = None if body.overage_limit is None else credits_of(body.overage_limit, "overage_limit")
    account = await asyncio.to_thread(
        services.ledger.put_account,
        request.path_params["account_id"],
        tenant_id=tenant_of(request, body.tenant_id),
        overage_limit_units=limit,
        capture_policy=body.capture_policy,
        unknown_policy=body.unknown_policy,
    )
    return respond(account_json(account))


async def list_accounts(services: Services, request: Request) -> Response:
    """List accounts of a tenant, or all."""
    tenant_id = tenant_of(request, request.query_params.get("tenant_id", ""))
    accounts = await asyncio.to_thread(services.ledger.list_accounts, tenant_id)
    return respond({"accounts": [account_json(account) for account in accounts]})


async def post_grant(services: Services, request: Request) -> Response:
    """Grant credit as a new lot."""
    body = await read_json(request, GrantBody)
    grant = GrantRequest(
        account_id=body.account_id,
        units=credits_of(body.amount),
        idempotency_key=idempotency_key(request, body.idempotency_key),
        source=body.source,
        priority=body.priority,
        expires_at=read_moment(body.expires_at, "expires_at") if body.expires_at else None,
    )
    return await apply_request(services, request, grant)


async def post_charge(services: Services, request: Request) -> Response:
    """Charge credit now, or decline with 402."""
    body = await read_json(request, ChargeBody)
    ask = work_ask(request, body, idempotency_key(request, body.idempotency_key))
    outcome = await services.authorizer.charge(
        ask, reason=body.reason, is_after_the_fact=body.after_the_fact
    )
    return await answer_outcome(services, outcome)


async def post_refund(services: Services, request: Request) -> Response:
    """Refund part or the rest of a charge."""
    body = await read_json(request, RefundBody)
    refund = RefundRequest(
        idempotency_key=idempotency_key(request, body.idempotency_key),
        charge_id=body.charge_id,
        tenant_id=tenant_of(request, body.tenant_id) if body.run_id else body.tenant_id,
        run_id=body.run_id,
        units=None if body.amount is None else credits_of(body.amount),
        reason=body.reason,
    )
    return await apply_request(services, request, refund)


async def get_balance(services: Services, request: Request) -> Response:
    """Show what an account has."""
    account_id = request.path_params["account_id"]
    balance = await asyncio.to_thread(
        services.ledger.balance, account_id, tenant_id=tenant_of(request)
    )
    return respond(balance_json(balance))


async def get_entries(services: Services, request: Request) -> Response:
    """List an account's entries, newest first."""
    entries, cursor = await asyncio.to_thread(
        services.ledger.entries,
        request.path_params["account_id"],
        cursor=request.query_params.get("cursor"),
        limit=read_limit(request.query_params, 100),
        tenant_id=tenant_of(request),
    )
    return respond({"entries": [entry_json(entry) for entry in entries], "next_cursor": cursor})


def account_json(account: Account) -> dict[str, Any]:
    """Show an account."""
    limit = account.overage_limit_units
    return {
        "account_id": account.account_id,
        "tenant_id": account.tenant_id,
        "overage_limit": None if limit is None else credits_text(limit),
        "capture_policy": account.capture_policy,
        "unknown_policy": account.unknown_policy,
    }


def balance_json(balance: Balance) -> dict[str, Any]:
    """Show a balance with its buckets."""
    amounts = ("available", "held", "leased", "granted", "captured", "expired")
    limit = balance.overage_limit_units
    return {
        "account_id": balance.account_id,
        "tenant_id": balance.tenant_id,
        **{name: credits_text(getattr(balance, name)) for name in amounts},
        "refunded": credits_text(balance.refunded),
        "overage": credits_text(balance.overage),
        "overage_limit": None if limit is None else credits_text(limit),
        "buckets": [
            {
                "lot_id": bucket.lot_id,
                "source": bucket.source,
                "priority": bucket.priority,
                "expires_at": format_time(bucket.expires_at) if bucket.expires_at else None,
                "granted": credits_text(bucket.granted),
                "available": credits_text(bucket.available),
                "held": credits_text(bucket.held),
                "captured": credits_text(bucket.captured),
                "expired": credits_text(bucket.expired),
            }
            for bucket in balance.buckets
        ],
    }


def entry_json(entry: EntryView) -> dict[str, Any]:
    """Show an entry."""
    return {
        "sequence": entry.sequence,
        "operation_id": entry.operation_id,
        "kind": entry.kind,
        "amount": credits_text(entry.units),
        "amount_units": entry.units,
        "counterpart": entry.counterpart,
        "run_id": entry.run_id,
        "reason": entry.reason,
        "shortfall": credits_text(entry.shortfall),
        "balance_after": credits_text(entry.balance_after),
        "posted_at": format_time(entry.posted_at),
    }


_KEY = {"idempotency_key": "order-1001"}

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/accounts",
        list_accounts,
        "Accounts of a tenant, or all",
        {"accounts": [{"account_id": "acme", "tenant_id": "acme"}]},
        query=("tenant_id",),
        needs="ledger:read",
    ),
    RouteEntry(
        "PUT",
        "/v1/accounts/{account_id:path}",
        put_account,
        "Create an account or change its settings",
        {"account_id": "acme", "tenant_id": "acme", "overage_limit": "0"},
        body=AccountBody,
        body_example={"tenant_id": "acme", "overage_limit": "0"},
        needs="ledger:write",
    ),
    RouteEntry(
        "GET",
        "/v1/accounts/{account_id:path}/balance",
        get_balance,
        "What an account has, by bucket",
        {"account_id": "acme", "available": "99.4936", "held": "0", "buckets": []},
        needs="ledger:read",
    ),
    RouteEntry(
        "GET",
        "/v1/accounts/{account_id:path}/entries",
        get_entries,
        "Entries of an account, newest first",
        {"entries": [{"kind": "charge", "amount": "-0.5064"}], "next_cursor": None},
        query=("cursor", "limit"),
        needs="ledger:read",
    ),
    RouteEntry(
        "POST",
        "/v1/grants",
        post_grant,
        "Grant credit as a new lot",
        {"grant_id": "0190…", "status": "posted", "available": "100"},
        201,
        GrantBody,
        {"account_id": "acme", "amount": "100", "source": "topup", **_KEY},
        needs="ledger:write",
    ),
    RouteEntry(
        "POST",
        "/v1/charges",
        post_charge,
        "Charge credit now; declined with 402 when it does not fit",
        {"charge_id": "0190…", "status": "posted", "available": "87.5"},
        201,
        ChargeBody,
        {"account_id": "acme", "amount": "12.5", **_KEY},
        needs="holds:write",
    ),
    RouteEntry(
        "POST",
        "/v1/refunds",
        post_refund,
        "Refund part or the rest of a charge, to the lots that it came from",
        {"refund_id": "0190…", "status": "posted", "available": "100"},
        201,
        RefundBody,
        {"tenant_id": "acme", "run_id": "run-42", "reason": "outage", **_KEY},
        needs="ledger:write",
    ),
)
"""Entries of the table of routes."""
