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
from tallystick.bootstrap import load_admin_key, open_platform, services_of
from tallystick.cli.serve import read_address
from tallystick.errors import DataFolderInUse, NotFound, TallystickError
from tallystick.reconcile.verify import CHECKED
from tallystick.settings import Settings

_TIMEOUT_SECONDS = 600


def ask(
    settings: Settings, path: str, offline: Callable[[Services], dict[str, Any]]
) -> dict[str, Any]:
    """Answer from the folder itself, or from the server that owns it."""
    try:
        with open_platform(settings) as platform:
            return offline(services_of(platform))
    except DataFolderInUse:
        return _fetch(settings, path)


def _fetch(settings: Settings, path: str) -> dict[str, Any]:
    folder = settings.data_folder
    key = load_admin_key(settings, folder)
    request = Request(read_address(folder).url + path, headers={"Authorization": f"Bearer {key}"})
    try:
        with urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
            found: dict[str, Any] = msgspec.json.decode(answer.read())
            return found
    except HTTPError as error:
        problem = msgspec.json.decode(error.read())
        kind = NotFound if error.code == 404 else TallystickError
        raise kind(problem.get("detail", "the server refused"), code=problem.get("code")) from error


def run_verify(settings: Settings, is_json: bool) -> int:
    """Print what holds; return 1 when something does not."""

    def offline(services: Services) -> dict[str, Any]:
        found = [msgspec.to_builtins(broken) for broken in services.verifier.violations()]
        return {"checked": CHECKED, "holds": not found, "violations": found}

    answer = ask(settings, "/v1/verification", offline)
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
    return 0 if answer["holds"] else 1


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
