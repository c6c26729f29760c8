"""What `tallystick budget ...` does: asks the running server, which enforces it at once."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from rich.console import Console
from rich.table import Table

from tallystick.cli.inspect import fetch
from tallystick.errors import NotFound
from tallystick.settings import Settings

_PATH = "/v1/budgets"
_TERMS = (
    "name", "scope", "asset", "amount", "window", "rolling_hours", "anchor_day", "time_zone",
    "carry_over_max", "enforcement", "shadow", "thresholds", "status", "revision",
)  # fmt: skip


def run_set(
    settings: Settings, tenant_id: str, budget_id: str, given: dict[str, Any], is_json: bool
) -> int:
    """Make a budget, or change what is given; an edit by somebody else meanwhile is a conflict."""
    try:
        before = fetch(settings, _path(budget_id, tenant_id), None)
        body = {name: before[name] for name in _TERMS}
    except NotFound:
        body = {"revision": 0}
    body |= {name: value for name, value in given.items() if value is not None}
    body["tenant_id"] = tenant_id
    answer = fetch(settings, _path(budget_id), body, "PUT")
    if is_json:
        _print(answer)
    else:
        _print(f"{budget_id}: {_terms_text(answer)}, revision {answer['revision']}")
    return 0


def run_list(settings: Settings, tenant_id: str, is_json: bool) -> int:
    """Print budgets, all pages."""
    found, cursor = [], ""
    while True:
        query = urlencode({"tenant_id": tenant_id, "cursor": cursor, "limit": "1000"})
        answer = fetch(settings, f"{_PATH}?{query}", None)
        found += answer["budgets"]
        cursor = answer["next_cursor"]
        if not cursor:
            break
    if is_json:
        _print({"budgets": found})
        return 0
    table = Table("tenant", "budget", "limit", "status")
    for one in found:
        table.add_row(one["tenant_id"], one["budget_id"], _terms_text(one), one["status"])
    Console().print(table)
    return 0


def run_show(settings: Settings, tenant_id: str, budget_id: str, is_json: bool) -> int:
    """Print a budget with its windows."""
    budget = fetch(settings, _path(budget_id, tenant_id), None)
    windows = fetch(settings, _path(budget_id, tenant_id, "/windows"), None)["windows"]
    if is_json:
        _print({**budget, "windows": windows})
        return 0
    _print(f"{budget_id}: {_terms_text(budget)}, {budget['status']}")
    table = Table("window until", "each", "used", "held", "left", "percent", "would have blocked")
    for one in windows:
        each = ", ".join(f"{name}={value}" for name, value in one["each"].items())
        until = (one["resets_at"] or "rolling")[:16].replace("T", " ")
        table.add_row(
            until,
            each,
            one["used"],
            one["held"],
            one["available"],
            str(one["percent"]),
            str(one["would_have_blocked"]),
        )
    Console().print(table)
    for one in budget["revisions"]:
        _print(f"{one['changed_at'][:19]}Z {one['changed_by']}: {_terms_text(one)}")
    return 0


def run_delete(settings: Settings, tenant_id: str, budget_id: str, is_json: bool) -> int:
    """End a budget."""
    answer = fetch(settings, _path(budget_id, tenant_id), None, "DELETE")
    _print(answer if is_json else f"{budget_id}: {answer['status']}")
    return 0


def _terms_text(budget: dict[str, Any]) -> str:
    scope = ", ".join(f"{name}={value}" for name, value in budget["scope"].items()) or "all work"
    period = budget["window"]
    if period == "rolling":
        period = f"{budget['rolling_hours']} hours"
    how = "shadow" if budget["shadow"] else budget["enforcement"]
    return f"{budget['amount']} {budget['asset']} a {period}, {scope}, {how}"


def _path(budget_id: str, tenant_id: str = "", more: str = "") -> str:
    query = f"?{urlencode({'tenant_id': tenant_id})}" if tenant_id else ""
    return f"{_PATH}/{quote(budget_id, safe='')}{more}{query}"


def _print(what: Any) -> None:
    text = what if isinstance(what, str) else msgspec.json.encode(what).decode()
    sys.stdout.write(text + "\n")
