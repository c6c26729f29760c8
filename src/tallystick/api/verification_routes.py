"""Routes of what must hold: how far followers are, invariants on live data, reconciliation."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.requests import read_json, respond
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.reconcile.verify import CHECKED


class ReconciliationBody(msgspec.Struct):
    """Body of POST /v1/reconciliations/ledger."""

    repair: bool = False


async def get_freshness(services: Services, request: Request) -> Response:
    """How far each follower is."""
    return respond(await ask_facts(services.freshness.report))


async def get_verification(services: Services, request: Request) -> Response:
    """Check the invariants on live data; with `ledger=true` also every sealed operation."""
    has_seals = request.query_params.get("ledger") == "true"
    head = request.query_params.get("expected_head", "")
    return respond(await ask_facts(verification, services, has_seals, head))


def verification(services: Services, has_seals: bool, expected_head: str) -> dict[str, Any]:
    """What holds; `seal_head` is the newest block's hash, to be kept elsewhere."""
    violations = services.verifier.violations()
    checked = dict(CHECKED)
    answer: dict[str, Any] = {}
    if has_seals:
        violations += services.verifier.sealed(expected_head)
        checked |= {"SEAL": "no operation differs from its sealed hash"}
        answer["seal_head"] = services.verifier.seal_head()
    found = [msgspec.to_builtins(broken) for broken in violations]
    return {"checked": checked, "holds": not found, "violations": found, **answer}


async def post_ledger_reconciliation(services: Services, request: Request) -> Response:
    """Compare the ledger with history, facts and rollups; with `repair` set rows right."""
    body = await read_json(request, ReconciliationBody, allow_empty=True)
    return respond(
        await ask_facts(services.reconciler.report, services.clock.now(), is_repairing=body.repair)
    )


ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/freshness",
        get_freshness,
        "How far each follower is behind the log",
        {
            "followers": [{"name": "sink", "lag_events": 0}],
            "refused_runs": 0,
            "refused": [],
            "accepted": 1,
            "counted": 1,
        },
        needs="operations:read",
        is_for_operator=True,
    ),
    RouteEntry(
        "GET",
        "/v1/verification",
        get_verification,
        "Check the invariants on live data",
        {"holds": True, "violations": []},
        query=("ledger", "expected_head"),
        needs="operations:read",
        is_for_operator=True,
    ),
    RouteEntry(
        "POST",
        "/v1/reconciliations/ledger",
        post_ledger_reconciliation,
        "Compare balances, entries, lots, holds, run charges, facts and rollups",
        {"agrees": True, "differences": [], "repaired_rows": 0, "runs_to_converge": 0},
        body=ReconciliationBody,
        body_example={"repair": False},
        needs="operations:write",
        is_for_operator=True,
    ),
)
"""Entries of the table of routes."""
