"""The table of routes: each noun's own, in one order."""

from __future__ import annotations

from tallystick.api import (
    access_routes,
    alert_routes,
    audit_routes,
    backfill_routes,
    broken_routes,
    budget_routes,
    call_routes,
    hold_routes,
    lease_routes,
    ledger_routes,
    mitigation_routes,
    otlp_routes,
    overrun_routes,
    provider_key_routes,
    quota_routes,
    rate_card_routes,
    rate_routes,
    schema_routes,
    stream_routes,
    usage_routes,
    verification_routes,
)
from tallystick.api.route_entry import RouteEntry

ROUTES: tuple[RouteEntry, ...] = (
    *hold_routes.ROUTES,
    *lease_routes.ROUTES,
    *usage_routes.ROUTES,
    *otlp_routes.ROUTES,
    *verification_routes.ROUTES,
    *ledger_routes.ROUTES,
    *stream_routes.ROUTES,
    *rate_card_routes.ROUTES,
    *schema_routes.ROUTES,
    *broken_routes.ROUTES,
    *backfill_routes.ROUTES,
    *audit_routes.ROUTES,
    *access_routes.ROUTES,
    *budget_routes.ROUTES,
    *call_routes.ROUTES,
    *alert_routes.ROUTES,
    *rate_routes.ROUTES,
    *mitigation_routes.ROUTES,
    *overrun_routes.ROUTES,
    *quota_routes.ROUTES,
    *provider_key_routes.ROUTES,
)
