"""The table of routes: path, method, handler, and what the OpenAPI document says of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from tallystick.api import broken_routes as broken
from tallystick.api import hold_routes as holds
from tallystick.api import ledger_routes as ledger
from tallystick.api import otlp_routes as otlp
from tallystick.api import schema_routes as schemas
from tallystick.api import stream_routes as stream
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
    media_type: str = "application/json"


_HELD = {
    "hold_id": "0190…",
    "status": "held",
    "expires_at": "2026-11-20T09:35:00Z",
    "available": "87.5",
    "lots": [{"lot_id": "0190…", "amount": "12.5"}],
}
_CAPTURED = {"charge_id": "0190…", "status": "captured", "captured": "9.2", "shortfall": "0"}

_BROKEN = {
    "broken_id": "broken:5f1d…",
    "tenant_id": "acme",
    "received_at": "2026-11-20T09:30:01.000000Z",
    "code": "wrong_type",
    "field": "tokens_input",
    "reason": "tokens_input must be a whole number",
    "draft": {"event_id": "e7", "tokens_input": "hmac:0f3c9a7be1d24c55"},
    "times_seen": 2,
    "status": "open",
}

ROUTES = (
    RouteEntry(
        "POST",
        "/v1/holds",
        holds.post_hold,
        "Set credit aside before work starts; declined with 402 when it does not fit",
        _HELD,
        201,
        holds.HoldBody,
        {"account_id": "acme", "amount": "12.5", "run_id": "run-42", **_KEY},
    ),
    RouteEntry(
        "POST",
        "/v1/holds/{hold_id}/capture",
        holds.post_capture,
        "Charge what the work cost, end the hold and free the rest",
        _CAPTURED,
        200,
        holds.CaptureBody,
        {"amount": "9.2", **_KEY},
    ),
    RouteEntry(
        "POST",
        "/v1/holds/{hold_id}/release",
        holds.post_release,
        "End a hold without a charge",
        {"hold_id": "0190…", "status": "released", "available": "100"},
        200,
        holds.ReleaseBody,
        _KEY,
    ),
    RouteEntry(
        "POST",
        "/v1/holds/{hold_id}/start",
        holds.post_start,
        "Say that the work has begun: the hold never frees itself from now on",
        {"hold_id": "0190…", "status": "held"},
        200,
        holds.StartBody,
        _KEY,
    ),
    RouteEntry(
        "POST",
        "/v1/holds/{hold_id}/extend",
        holds.post_extend,
        "Give a hold more time, more credit, or both",
        _HELD,
        200,
        holds.ExtendBody,
        {"ttl_seconds": 300, "amount": "5", **_KEY},
    ),
    RouteEntry(
        "GET",
        "/v1/holds/{hold_id}",
        holds.get_hold,
        "A hold or lease, open or ended",
        {"hold_id": "0190…", "status": "held", "held": "12.5", "captured": "0"},
    ),
    RouteEntry(
        "POST",
        "/v1/holds:batch",
        holds.post_holds_batch,
        "Set credit aside for many; each on its own, or all or nothing",
        {"results": [_HELD]},
        body=holds.HoldsBody,
        body_example={"items": [{"account_id": "acme", "amount": "1", **_KEY}]},
    ),
    RouteEntry(
        "POST",
        "/v1/captures:batch",
        holds.post_captures_batch,
        "Settle many holds; each on its own, or all or nothing",
        {"results": [_CAPTURED]},
        body=holds.CapturesBody,
        body_example={"items": [{"hold_id": "0190…", "amount": "1", **_KEY}]},
    ),
    RouteEntry(
        "POST",
        "/v1/leases",
        holds.post_lease,
        "Lend a block of credit to a worker that authorizes by itself",
        {"lease_id": "0190…", "epoch": 1, "status": "leased"},
        201,
        holds.LeaseBody,
        {"account_id": "acme", "amount": "50", "ttl_seconds": 60, "worker": "w-1", **_KEY},
    ),
    RouteEntry(
        "POST",
        "/v1/leases/{lease_id}/report",
        holds.post_report,
        "Charge what a worker used of its lease so far, in all",
        {"lease_id": "0190…", "status": "reported", "captured": "7"},
        200,
        holds.ReportBody,
        {"used": "7", "epoch": 1, **_KEY},
    ),
    RouteEntry(
        "POST",
        "/v1/leases/{lease_id}/extend",
        holds.post_lease_extend,
        "Give a lease more time, more credit, or both; the epoch fences off a lost worker",
        {"lease_id": "0190…", "status": "held", "epoch": 1},
        200,
        holds.ExtendBody,
        {"ttl_seconds": 60, "amount": "10", "epoch": 1, **_KEY},
    ),
    RouteEntry(
        "POST",
        "/v1/leases/{lease_id}/return",
        holds.post_return,
        "Charge what was used of a lease in all and free the rest",
        {"lease_id": "0190…", "status": "returned", "captured": "3"},
        200,
        holds.ReportBody,
        {"used": "10", "epoch": 1, **_KEY},
    ),
    RouteEntry(
        "POST",
        "/v1/events",
        usage.post_events,
        "Take events: one object, an array, NDJSON or CloudEvents; answers once durable",
        {"accepted": 1, "duplicates": 0, "rejected": []},
        body_example=[_EVENT],
    ),
    RouteEntry(
        "POST",
        "/v1/traces",
        otlp.post_traces,
        "Take OpenTelemetry GenAI spans (OTLP/HTTP, protobuf or JSON)",
        {},
        body_example={"resourceSpans": []},
    ),
    RouteEntry(
        "POST",
        "/v1/logs",
        otlp.post_logs,
        "Take OpenTelemetry GenAI log events (OTLP/HTTP, protobuf or JSON)",
        {},
        body_example={"resourceLogs": []},
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
        query=("ledger", "expected_head"),
    ),
    RouteEntry(
        "POST",
        "/v1/reconciliations/ledger",
        usage.post_ledger_reconciliation,
        "Compare balances, entries, lots, holds, run charges, facts and rollups",
        {"agrees": True, "differences": [], "repaired_rows": 0, "runs_to_converge": 0},
        body=usage.ReconciliationBody,
        body_example={"repair": False},
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
        "/v1/accounts/{account_id:path}/balance/stream",
        stream.get_balance_stream,
        "The balance as server-sent events: at once, and after every change",
        'event: balance\\ndata: {"account_id": "acme", "available": "99.4936"}\\n\\n',
        media_type="text/event-stream",
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
    RouteEntry(
        "GET",
        "/v1/schemas",
        schemas.list_schemas,
        "Published event schemas, and the versions that producers wrote in the last day",
        {
            "schema_version": 1,
            "schemas": ["event.schema.json"],
            "seen_last_day": [{"schema_version": 1, "events": 36401, "is_newer": False}],
        },
    ),
    RouteEntry(
        "GET",
        "/v1/schemas/{name}",
        schemas.get_schema,
        "One JSON Schema by file name, or asyncapi.yaml (written as JSON)",
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "event"},
    ),
    RouteEntry(
        "GET",
        "/v1/broken-messages",
        broken.list_broken,
        "Broken messages, newest first: why, a redacted draft, how often, what was done",
        {"broken_messages": [_BROKEN], "next_cursor": None},
        query=("tenant_id", "code", "from", "to", "status", "cursor", "limit"),
    ),
    RouteEntry(
        "GET",
        "/v1/broken-messages/{broken_id}",
        broken.get_broken,
        "One broken message and everything that was done about it",
        {**_BROKEN, "actions": []},
    ),
    RouteEntry(
        "POST",
        "/v1/broken-messages/{broken_id}/fix",
        broken.post_fix,
        "Set fields of the draft and store the event; 422 when it would still be broken",
        {"broken_id": "broken:5f1d…", "status": "fixed", "outcome": "accepted", "event_id": "e7"},
        200,
        broken.FixBody,
        {"set": {"tokens_input": 1200}},
    ),
    RouteEntry(
        "POST",
        "/v1/broken-messages:fix",
        broken.post_fix_many,
        "Fix the open messages of one code with the same fields; dry_run counts and shows samples",
        {"dry_run": True, "examined": 12, "repairable": 11, "fixed": 0, "next_cursor": None},
        200,
        broken.FixManyBody,
        {"code": "naive_time", "set": {"event_time": "2026-01-31T12:00:00Z"}, "dry_run": True},
    ),
    RouteEntry(
        "POST",
        "/v1/broken-messages/{broken_id}/dismiss",
        broken.post_dismiss,
        "Say that a broken message needs no fix",
        {"broken_id": "broken:5f1d…", "status": "dismissed"},
        200,
        broken.DismissBody,
        {"reason": "a test of the producer"},
    ),
)
