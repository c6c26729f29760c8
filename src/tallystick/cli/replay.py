"""`replay`: wipe what is derived, rebuild it from the log, and compare the totals."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tallystick.analytics.stats import StatsQuery
from tallystick.bootstrap import Platform, open_platform
from tallystick.clock import DAY
from tallystick.errors import TallystickError
from tallystick.settings import Settings

_STALL_SECONDS_MAX = 120.0


def run_replay(settings: Settings, is_json: bool) -> int:
    """Rebuild; return 1 when a total differs from before."""
    console = Console(stderr=True)
    with open_platform(settings) as platform:
        wait_until_caught_up(platform, console)
        before = totals(platform)
    with open_platform(settings, has_wipe=True) as platform:
        wait_until_caught_up(platform, console)
        after = totals(platform)
        violations = platform.verifier.violations()
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


def totals(platform: Platform) -> dict[str, Any]:
    """Every figure of /v1/stats over all time, and what the ledger charged."""
    query = StatsQuery(0, platform.clock.now() + DAY)
    row = platform.stats.query(query)[0]
    charged = sum(platform.ledger.load_run_targets().values())
    counts = platform.freshness.report()
    deliveries = {name: counts[name] for name in ("facts", "duplicates", "conflicts")}
    return {**row, **deliveries, "ledger_target_units": charged}


def wait_until_caught_up(platform: Platform, console: Console) -> None:
    """Wait for every follower; raise when they stop moving."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task(
            "rebuilding from the log", total=sum(platform.heads.heads().values())
        )
        moved_at, last = time.monotonic(), (-1, -1)
        while True:
            positions = platform.freshness.positions()
            pending = platform.freshness.count_pending_runs()
            progress.update(task, completed=positions[0]["position"])
            if not pending and not any(position["lag_events"] for position in positions):
                return
            state = (sum(position["position"] for position in positions), pending)
            if state != last:
                moved_at, last = time.monotonic(), state
            elif time.monotonic() - moved_at > _STALL_SECONDS_MAX:
                raise TallystickError(f"the followers stopped at {state}; see engine.log")
            time.sleep(0.2)
