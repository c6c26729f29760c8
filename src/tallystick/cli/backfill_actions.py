"""What `tallystick backfill ...` does: asks the running server, whose followers do the work."""

from __future__ import annotations

import sys
import time
from typing import Any
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tallystick.cli.inspect import ask, fetch
from tallystick.clock import SystemClock
from tallystick.ids import Uuid7Source
from tallystick.settings import Settings

_PATH = "/v1/backfills"
_POLL_SECONDS = 0.5
_ENDED = ("done", "failed", "paused", "reverted")


def run_backfill(
    settings: Settings, body: dict[str, Any], is_json: bool, *, is_waiting: bool
) -> int:
    """Plan a backfill, and show its progress and report."""
    return _plan(settings, _PATH, body, is_json, is_waiting)


def run_revert(
    settings: Settings, backfill_id: str, body: dict[str, Any], is_json: bool, *, is_waiting: bool
) -> int:
    """Plan the revert of a backfill, and show its progress and report."""
    return _plan(settings, _path(backfill_id, "/revert"), body, is_json, is_waiting)


def run_verb(settings: Settings, backfill_id: str, verb: str, is_json: bool) -> int:
    """Pause or resume."""
    answer = fetch(settings, _path(backfill_id, f"/{verb}"), {})
    _print(answer if is_json else f"{answer['backfill_id']}: {answer['status']}")
    return 0


def run_list(settings: Settings, is_json: bool) -> int:
    """Print backfills, newest first."""
    answer = fetch(settings, _PATH, None)
    if is_json:
        _print(answer)
        return 0
    table = Table("backfill", "status", "what", "examined", "corrected", "reason")
    for one in answer["backfills"]:
        progress = one["progress"]
        table.add_row(
            one["backfill_id"],
            one["status"],
            f"reverts {one['reverts']}" if one["reverts"] else f"{one['from']} to {one['to']}",
            str(progress["examined"]),
            str(progress["corrected"]) + (" (dry run)" if one["dry_run"] else ""),
            one["reason"],
        )
    Console().print(table)
    return 0


def run_show(settings: Settings, backfill_id: str, is_json: bool) -> int:
    """Print one backfill with its report; return 1 when it failed."""
    answer = fetch(settings, _path(backfill_id), None)
    return _show(answer, is_json)


def run_reconcile_events(settings: Settings, is_json: bool, is_repairing: bool) -> int:
    """Print which events count twice; return 1 while some do."""
    answer = ask(
        settings,
        "/v1/reconciliations/events",
        lambda services: services.doubles.report(is_repairing=is_repairing),
        body={"repair": is_repairing},
    )
    if is_json:
        _print(answer)
    elif answer["agrees"]:
        _print("every event counts once")
    else:
        more = " or more" if answer["has_more"] else ""
        _print(f"{answer['doubles']}{more} events counted twice: {', '.join(answer['examples'])}")
        if is_repairing:
            _print(f"reversed {answer['reversed_rows']} rows; charges converge by delta")
    return 0 if answer["agrees"] or (is_repairing and not answer["lagging"]) else 1


def _plan(
    settings: Settings, path: str, body: dict[str, Any], is_json: bool, is_waiting: bool
) -> int:
    body = {**body, "idempotency_key": body["idempotency_key"] or _new_key()}
    planned = fetch(settings, path, body)
    if not is_waiting:
        _print(planned if is_json else planned["backfill_id"])
        return 0
    return _show(_wait(settings, planned["backfill_id"]), is_json)


def _new_key() -> str:
    return Uuid7Source(SystemClock()).next_id()


def _wait(settings: Settings, backfill_id: str) -> dict[str, Any]:
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("planned", total=None)
        while True:
            answer = fetch(settings, _path(backfill_id), None)
            progress = answer["progress"]
            bar.update(
                task,
                total=progress["expected"],
                completed=progress["examined"],
                description=f"{answer['status']}: {progress['examined']} events examined, "
                f"{progress['corrected']} corrected",
            )
            if answer["status"] in _ENDED:
                return answer
            time.sleep(_POLL_SECONDS)


def _show(answer: dict[str, Any], is_json: bool) -> int:
    if is_json:
        _print(answer)
    else:
        _print_report(answer)
    return 1 if answer["status"] == "failed" else 0


def _print_report(answer: dict[str, Any]) -> None:
    report, progress = answer["report"], answer["progress"]
    verb = "would be corrected" if answer["dry_run"] else "corrected"
    _print(f"{answer['backfill_id']}: {answer['status']} ({answer['reason']})")
    if answer["failure"]:
        _print(f"failed: {answer['failure']}")
    _print(
        f"{progress['corrected']} of {progress['examined']} events {verb}, "
        f"{report['affected_runs']} runs; {progress['skipped']} left as corrected since"
    )
    table = Table("tenant", "model", "events", "corrected", "cost USD", "credits")
    total = {"tenant_id": "all", "model": "", **report["total"]}
    for line in (*report["by_tenant_and_model"], total):
        table.add_row(
            line["tenant_id"],
            line["model"],
            str(line["events"]),
            str(line["corrected"]),
            f"{line['cost_usd']['before']} -> {line['cost_usd']['after']}",
            f"{line['credits']['before']} -> {line['credits']['after']}",
        )
    Console().print(table)
    for run in report["top_differences"]:
        _print(f"  {run['tenant_id']}/{run['charge_key']}: {run['credits']} credits")


def _path(backfill_id: str, verb: str = "") -> str:
    return f"{_PATH}/{quote(backfill_id, safe='')}{verb}"


def _print(answer: dict[str, Any] | str) -> None:
    print(answer if isinstance(answer, str) else msgspec.json.encode(answer).decode())  # noqa: T201
