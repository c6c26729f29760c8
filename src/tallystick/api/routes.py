"""The table of routes: path, method, handler, and what the OpenAPI document says of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from tallystick.api import ledger_routes as ledger
from tallystick.api import usage_routes as usage
from tallystick.api.services import Services

Handler = Callable[[Services, Request], Awaitable[Response]]
_KEY = {"idempotency_key": "order-1001"}
_EVENT = {
    "event_id": "evt-1",
    "event_type": "token_usage",
    "event_time": "2026-11-20T09:30:00Z",
    "tenant_id": "acme",
    "run_id": "run-42",
    "attempt": 1,
    "provider": "openai",
    "model": "gpt-4o",
    "tokens_input": 1200,
    "tokens_output": 250,
    "tokens_cache_read": 1024,
    "feature": "support-chat",
}
_STATS_ROW = {
    "model": "gpt-4o",
    "runs": 1,
    "calls": 1,
    "tokens_input": 1200,
    "cost_usd": "0.00422",
    "cost_coverage": 1.0,
    "credits": "0.5064",
}


class RouteEntry(NamedTuple):
    """One route; `query` names its parameters, `body` its typed request."""

    method: str
    path: str
    handler: Handler
    summary: str
    example: Any
    status: int = 200
    body: type | None = None
    body_example: Any = None
    query: tuple[str, ...] = ()


ROUTES = (
    RouteEntry(
        "POST",
        "/v1/events",
        usage.post_events,
        "Take events: one object, an array, NDJSON or CloudEvents; answers once durable",
        {"accepted": 1, "duplicates": 0, "rejected": []},
        body_example=[_EVENT],
    ),
    RouteEntry(
        "GET",
        "/v1/stats",
        usage.get_stats,
        "Usage, cost and credits over time and by dimension",
        {"from": "2026-11-20T00:00:00Z", "to": "2026-11-21T00:00:00Z", "rows": [_STATS_ROW]},
        query=("from", "to", "interval", "group_by", "tenant_id"),
    ),
    RouteEntry(
        "GET",
        "/v1/runs",
        usage.list_runs,
        "Runs, newest first",
        {"runs": [{"run_id": "run-42", "status": "completed"}], "next_cursor": None},
        query=("tenant_id", "status", "from", "to", "limit", "cursor"),
    ),
    RouteEntry(
        "GET",
        "/v1/runs/{run_id:path}",
        usage.get_run,
        "What happened in one run: timeline, attempts, cost, charges, what came late or twice",
        {"run_id": "run-42", "status": "completed", "timeline": [], "charge": None},
        query=("tenant_id",),
    ),
    RouteEntry(
        "GET",
        "/v1/freshness",
        usage.get_freshness,
        "How far each follower is behind the log",
        {"followers": [{"name": "sink", "lag_events": 0}], "accepted": 1, "counted": 1},
    ),
    RouteEntry(
        "GET",
        "/v1/verification",
        usage.get_verification,
        "Check the invariants on live data",
        {"holds": True, "violations": []},
    ),
    RouteEntry(
        "GET",
        "/v1/accounts",
        ledger.list_accounts,
        "Accounts of a tenant, or all",
        {"accounts": [{"account_id": "acme", "tenant_id": "acme"}]},
        query=("tenant_id",),
    ),
    RouteEntry(
        "PUT",
        "/v1/accounts/{account_id:path}",
        ledger.put_account,
        "Create an account or change its settings",
        {"account_id": "acme", "tenant_id": "acme", "overage_limit": "0"},
        body=ledger.AccountBody,
        body_example={"tenant_id": "acme", "overage_limit": "0"},
    ),
    RouteEntry(
        "GET",
        "/v1/accounts/{account_id:path}/balance",
        ledger.get_balance,
        "What an account has, by bucket",
        {"account_id": "acme", "available": "99.4936", "held": "0", "buckets": []},
    ),
    RouteEntry(
        "GET",
        "/v1/accounts/{account_id:path}/entries",
        ledger.get_entries,
        "Entries of an account, newest first",
        {"entries": [{"kind": "charge", "amount": "-0.5064"}], "next_cursor": None},
        query=("cursor", "limit"),
    ),
    RouteEntry(
        "POST",
        "/v1/grants",
        ledger.post_grant,
        "Grant credit as a new lot",
        {"grant_id": "0190…", "status": "posted", "available": "100"},
        201,
        ledger.GrantBody,
        {"account_id": "acme", "amount": "100", "source": "topup", **_KEY},
    ),
    RouteEntry(
        "POST",
        "/v1/charges",
        ledger.post_charge,
        "Charge credit now; declined with 402 when it does not fit",
        {"charge_id": "0190…", "status": "posted", "available": "87.5"},
        201,
        ledger.ChargeBody,
        {"account_id": "acme", "amount": "12.5", **_KEY},
    ),
    RouteEntry(
        "POST",
        "/v1/refunds",
        ledger.post_refund,
        "Refund part or the rest of a charge, to the lots that it came from",
        {"refund_id": "0190…", "status": "posted", "available": "100"},
        201,
        ledger.RefundBody,
        {"tenant_id": "acme", "run_id": "run-42", "reason": "outage", **_KEY},
    ),
    RouteEntry(
        "GET",
        "/v1/rate-cards",
        usage.list_rate_cards,
        "Rate cards",
        {"rate_cards": [{"rate_card_id": "credits", "kind": "credit", "versions": 1}]},
    ),
    RouteEntry(
        "GET",
        "/v1/rate-cards/{rate_card_id}/versions",
        usage.list_rate_card_versions,
        "Versions of a rate card, newest first",
        {"rate_card_id": "credits", "versions": [{"version_id": 2}]},
    ),
    RouteEntry(
        "POST",
        "/v1/rate-cards/{rate_card_id}/versions",
        usage.post_rate_card_version,
        "Record a version of a rate card",
        {"rate_card_id": "credits", "versions": [{"version_id": 3}]},
        201,
        usage.RateCardVersionBody,
        {
            "kind": "credit",
            "effective_at": "2026-12-01T00:00:00Z",
            "content": {"token_markup": "1.3"},
        },
    ),
)
