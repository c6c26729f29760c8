"""`verify` and `trace`: ask the running server, or open the data folder when none runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import msgspec
from rich.console import Console
from rich.table import Table

from tallystick.api.services import Services
from tallystick.api.usage_routes import run_story
from tallystick.api.verification_routes import verification
from tallystick.bootstrap import load_admin_key, open_platform, services_of
from tallystick.cli.serve import read_address
from tallystick.errors import DataFolderInUse, NotFound, TallystickError
from tallystick.settings import Settings

_TIMEOUT_SECONDS = 600


def ask(
    settings: Settings,
    path: str,
    offline: Callable[[Services], dict[str, Any]],
    body: dict[str, Any] | None = None,
    method: str | None = None,
) -> dict[str, Any]:
    """Answer from the folder itself, or from the server that owns it."""
    try:
        with open_platform(settings) as platform:
            return offline(services_of(platform))
    except DataFolderInUse:
        return fetch(settings, path, body, method)


def fetch(
    settings: Settings, path: str, body: dict[str, Any] | None, method: str | None = None
) -> dict[str, Any]:
    """Ask the server that owns the folder; raise its problem."""
    folder = settings.data_folder
    key = load_admin_key(settings, folder)
    request = Request(
        read_address(folder).url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        method=method,
    )
    try:
        with urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            found: dict[str, Any] = msgspec.json.decode(answer.read())
            return found
    except HTTPError as error:
        problem = msgspec.json.decode(error.read())
        kind = NotFound if error.code == 404 else TallystickError
        raise kind(problem.get("detail", "the server refused"), code=problem.get("code")) from error


def run_verify(settings: Settings, is_json: bool, has_ledger: bool, head: str) -> int:
    """Print what holds; return 1 when something does not."""
    path = "/v1/verification"
    if has_ledger:
        path += "?" + urlencode({"ledger": "true", "expected_head": head})
    answer = ask(settings, path, lambda services: verification(services, has_ledger, head))
    if is_json:
        print(json.dumps(answer))  # noqa: T201
    else:
        broken = {violation["invariant_id"]: violation for violation in answer["violations"]}
        table = Table("invariant", "what must hold", "result")
        for invariant_id, sentence in answer["checked"].items():
            violation = broken.get(invariant_id)
            result = f"{violation['count']} broken: {violation['examples']}" if violation else "ok"
            table.add_row(invariant_id, sentence, result)
        Console().print(table)
        if has_ledger:
            print(f"newest seal: {answer['seal_head'] or 'none yet'}")  # noqa: T201
    return 0 if answer["holds"] else 1


def run_reconcile(settings: Settings, is_json: bool, is_repairing: bool) -> int:
    """Print what differs; return 1 when something does."""
    answer = ask(
        settings,
        "/v1/reconciliations/ledger",
        lambda services: services.reconciler.report(
            services.clock.now(), is_repairing=is_repairing
        ),
        body={"repair": is_repairing},
    )
    if is_json:
        print(json.dumps(answer))  # noqa: T201
    elif answer["agrees"]:
        print("balances, entries, lots, holds, run charges, facts and rollups agree")  # noqa: T201
    else:
        table = Table("area", "where", "first bad entry", "expected", "found")
        for one in answer["differences"]:
            table.add_row(
                one["area"], one["where"], one["first_bad"], str(one["expected"]), str(one["found"])
            )
        Console().print(table)
        if is_repairing:
            print(  # noqa: T201
                f"repaired {answer['repaired_rows']} rows; "
                f"{answer['runs_to_converge']} runs will be charged again by delta"
            )
    return 0 if answer["agrees"] else 1


def run_trace(settings: Settings, run_id: str, tenant: str | None, is_json: bool) -> int:
    """Print the story of one run."""
    query = f"?{urlencode({'tenant_id': tenant})}" if tenant else ""
    story = ask(
        settings,
        f"/v1/runs/{quote(run_id, safe='')}{query}",
        lambda services: run_story(services, run_id, tenant),
    )
    if is_json:
        print(json.dumps(story))  # noqa: T201
    else:
        _print_story(Console(), story)
    return 0


def _print_story(console: Console, story: dict[str, Any]) -> None:
    console.print(
        f"run {story['run_id']} of {story['tenant_id']}: {story['status']}, "
        f"{story['attempts'][-1]['attempt'] if story['attempts'] else 0} attempt(s), "
        f"cost {story['cost_usd']} USD",
        highlight=False,
    )
    table = Table("time", "attempt", "event", "what", "tokens", "cost USD", "log offset")
    for event in story["timeline"]:
        what = event.get("model") or event.get("tool") or ""
        error = f" ({event['error_code']})" if "error_code" in event else ""
        tokens = f"{event['tokens_input']}+{event.get('tokens_output', 0)}" if (
            "tokens_input" in event
        ) else ""  # fmt: skip
        late = " late" if event["is_late"] else ""
        table.add_row(
            event["occurred_at"][:23].replace("T", " "),
            str(event["attempt"]),
            event["event_type"] + late,
            what + error,
            tokens,
            event.get("cost_usd", ""),
            str(event["log_offset"]),
        )
    console.print(table)
    counts = story["counts"]
    if story["is_timeline_cut"]:
        console.print(f"only the beginning is shown, of {counts['events']} events in all")
    if story["expired_before"]:
        console.print(f"events of before {story['expired_before'][:10]} have expired")
    console.print(
        f"arrived late: {counts['late']}, twice: {counts['duplicates']}, "
        f"in conflict: {counts['conflicts']}"
    )
    charge = story["charge"]
    if charge:
        console.print(
            f"charged {charge['charged']} of {charge['target']} credits to {charge['account_id']}"
            f" (shortfall {charge['shortfall']}, refunded {charge['refunded']})"
        )
    for operation in story["ledger_operations"]:
        console.print(
            f"  {operation['posted_at']} {operation['kind']} {operation['amount']} "
            f"{operation['outcome']} {operation['operation_id']}",
            highlight=False,
        )
