"""Refusals: why work was declined, whoever asked: a hold, a call of a model, or more for either.

What was asked is kept with the decline: a call's as calls keep it, a hold's as it was sent. An
extension names nothing but its hold, which knows whose work it is.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.clock import format_time
from tallystick.enforcement.budgets import Budgets
from tallystick.enforcement.budgets.explaining import Question, explain
from tallystick.enforcement.calls.amounts import limit_parts
from tallystick.enforcement.calls.details import attribution_of, read_details
from tallystick.ledger import Ledger
from tallystick.units import CREDIT, USD


def explain_refusal(
    budgets: Budgets, ledger: Ledger, operation_id: str, tenant_id: str
) -> dict[str, Any] | None:
    """Why an operation was declined; None when there is no such refusal of this tenant."""
    found = ledger.load_refusal(operation_id)
    if found is None or tenant_id not in ("", found["tenant_id"]):
        return None
    question, at = _question_of(found)
    limit_id = found["decided_by"].removeprefix("limit:")
    answer = explain(budgets, ledger, question, at)
    for one in answer["limits"]:
        one["decided"] = found["decided_by"] == one["decided_by"] or one["limit_id"] == limit_id
    decided = [one["decided_by"] for one in answer["limits"] if one["decided"]]
    return {
        "operation_id": found["operation_id"],
        "code": found["code"],
        "refused_at": format_time(found["posted_at"]),
        "decided_by": decided[0] if decided else found["decided_by"],
        "account_id": found["account_id"],
        "run_id": found["run_id"],
        "limits": answer["limits"],
        "now": {"would_be": answer["would_be"], "decided_by": answer["decided_by"]},
    }


def _question_of(found: dict[str, Any]) -> tuple[Question, int]:
    """What was asked, and the moment whose windows it fell under."""
    who, units = (found["account_id"], found["tenant_id"]), {str(CREDIT): found["units"]}
    call = read_details(found["details"])
    is_more = found["kind"] == "extend"
    if call is None:
        said = msgspec.json.decode(found["details"]) if found["details"] else {}
        usd_units, tokens = said.get("cost_usd_units", 0), said.get("tokens", 0)
        attribution, limit, at = said.get("attribution", {}), ("", ""), found["posted_at"]
    else:
        usd_units, tokens = call.usd_units, call.said.tokens_input + call.tokens_output
        attribution, at = attribution_of(call.said), call.at
        limit = (call.limit_id, call.limit_asset)
    if is_more:  # what it asked of others than credit is not kept
        usd_units = tokens = 0
    units |= {str(USD): usd_units, "tokens": tokens, "requests": 0 if is_more else 1}
    parts = limit_parts(limit, found["units"], usd_units)
    return Question(*who, units, attribution, parts), at
