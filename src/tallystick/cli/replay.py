"""`replay`: wipe what is derived, rebuild it, and compare the totals.

It is rebuilt from the log, or from the archive as far as that goes: then the archive must be
whole and reach back to the first event, and the facts must come out equal bit by bit.
"""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tallystick.analytics.stats import StatsQuery
from tallystick.analytics.store import FactStore
from tallystick.archive import Archive, verify_archive
from tallystick.bootstrap import Platform, open_platform
from tallystick.cli.archive import open_archive
from tallystick.clock import DAY
from tallystick.errors import InvalidInput, TallystickError
from tallystick.settings import Settings

_STALL_SECONDS_MAX = 120.0


def run_replay(
    settings: Settings,
    is_json: bool,
    is_from_archive: bool = False,
    *,
    is_restored: bool = False,
) -> int:
    """Rebuild; return 1 when a total differs from before.

    `is_restored`: the log was set back, so what was before is of another log, and not compared.
    """
    console = Console(stderr=True)
    if is_from_archive:
        require_whole(open_archive(settings))
    before = None
    if not is_restored:
        with open_platform(settings) as platform:
            wait_until_caught_up(platform, console)
            before = totals(platform, has_digest=is_from_archive)
    with open_platform(settings, has_wipe=True, is_restoring=is_from_archive) as platform:
        wait_until_caught_up(platform, console)
        after = totals(platform, has_digest=is_from_archive)
        violations = platform.verifier.violations()
    before = after if before is None else before
    is_same = before == after and not violations
    if is_json:
        print(json.dumps({"same": is_same, "before": before, "after": after}))  # noqa: T201
    else:
        table = Table("figure", "before", "after", "")
        for name, value in before.items():
            mark = "same" if value == after[name] else "DIFFERENT"
            table.add_row(name, str(value), str(after[name]), mark)
        console.print(table)
    return 0 if is_same else 1


def require_whole(archive: Archive) -> None:
    """Raise when a wipe would lose facts: the archive is damaged or does not reach back."""
    findings = verify_archive(archive)
    if findings.violations:
        raise InvalidInput(
            f"the archive is damaged, nothing was wiped: {findings.violations[0]}",
            code="archive_damaged",
        )
    for one in findings.partitions:
        if one.offset_start:
            raise InvalidInput(
                f"partition {one.partition} of the archive begins at offset {one.offset_start}: "
                "facts before it would be lost, nothing was wiped; replay from the log instead",
                code="archive_incomplete",
            )


def totals(platform: Platform, *, has_digest: bool = False) -> dict[str, Any]:
    """Every figure of /v1/stats over all time, and what the ledger charged.

    `has_digest` adds a digest over every column of every fact.
    """
    query = StatsQuery(0, platform.clock.now() // DAY * DAY + 2 * DAY)
    row = platform.stats.query(query)[0]
    charged = sum(platform.ledger.load_run_targets().values())
    counts = platform.freshness.report()
    deliveries = {name: counts[name] for name in ("facts", "duplicates", "conflicts")}
    digest = {"facts_digest": FactStore(platform.clickhouse).query_digest()} if has_digest else {}
    return {**row, **deliveries, **digest, "ledger_target_units": charged}


def wait_until_caught_up(platform: Platform, console: Console) -> None:
    """Wait for every follower; raise when they stop moving."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(
            "rebuilding from the log", total=sum(platform.heads.heads().values())
        )
        moved_at, last = time.monotonic(), (-1, -1)
        while True:
            positions = [one for one in platform.freshness.positions() if one["name"] != "archiver"]
            pending, _ = platform.freshness.count_runs()
            progress.update(task, completed=positions[0]["position"])
            if not pending and not any(position["lag_events"] for position in positions):
                return
            state = (sum(position["position"] for position in positions), pending)
            if state != last:
                moved_at, last = time.monotonic(), state
            elif time.monotonic() - moved_at > _STALL_SECONDS_MAX:
                raise TallystickError(f"the followers stopped at {state}; see engine.log")
            time.sleep(0.2)
