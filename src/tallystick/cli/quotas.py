"""`reconcile quotas` and `replay --vault`: the vault against analytics, and against itself."""

from __future__ import annotations

import hashlib
import json
import time

from rich.console import Console
from rich.table import Table

from tallystick.api.quota_routes import quota_report
from tallystick.bootstrap import Platform, open_platform
from tallystick.cli.inspect import ask
from tallystick.enforcement.vault import VaultStore
from tallystick.enforcement.vault.model import FOLLOWER
from tallystick.errors import InvalidInput, TallystickError
from tallystick.settings import Settings

_STALL_SECONDS_MAX = 120.0


def run_reconcile_quotas(settings: Settings, is_json: bool) -> int:
    """Print where vault and analytics differ; return 1 when they do."""
    answer = ask(
        settings,
        "/v1/reconciliations/quotas",
        lambda services: quota_report(services, "", "", ""),
        body={},
    )
    if is_json:
        print(json.dumps(answer))  # noqa: T201
    elif answer["agrees"]:
        print(  # noqa: T201
            f"vault and analytics agree in {answer['compared']} sums: {answer['vault_usd']} USD"
        )
    else:
        table = Table("kind", "tenant", "user", "project", "model", "day", "vault", "analytics")
        for one in answer["differences"]:
            names = ("kind", "tenant_id", "user_id", "project_id", "model", "day")
            table.add_row(*(one[name] for name in names), str(one["vault"]), str(one["analytics"]))
        Console().print(table)
    return 0 if answer["agrees"] else 1


def run_replay_vault(settings: Settings, is_json: bool) -> int:
    """Wipe the vault, follow the log again; return 1 unless every byte is as before."""
    if settings.kafka_brokers:
        raise InvalidInput(
            "Kafka may have dropped what the vault counted: nothing was wiped "
            "(docs/quotas.md says how to rebuild there)",
            code="log_not_whole",
        )
    with open_platform(settings) as platform:
        store = VaultStore(platform.pool)
        wait_for_vault(platform)
        before = store.dump()
        store.wipe()
        wait_for_vault(platform)
        after = store.dump()
    answer = {
        "same": before == after,
        "rows": after.count(b"\n"),
        "before": hashlib.sha256(before).hexdigest(),
        "after": hashlib.sha256(after).hexdigest(),
    }
    if is_json:
        print(json.dumps(answer))  # noqa: T201
    else:
        verdict = "the same bytes as before" if answer["same"] else "DIFFERENT from before"
        print(f"rebuilt {answer['rows']} rows of the vault: {verdict}")  # noqa: T201
    return 0 if answer["same"] else 1


def wait_for_vault(platform: Platform) -> None:
    """Wait until the vault is at the head of the log; raise when it stops moving."""
    moved_at, last = time.monotonic(), -1
    while True:
        one = next(o for o in platform.freshness.positions() if o["name"] == FOLLOWER)
        if not one["lag_events"]:
            return
        if one["lag_events"] != last:
            moved_at, last = time.monotonic(), one["lag_events"]
        elif time.monotonic() - moved_at > _STALL_SECONDS_MAX:
            raise TallystickError(f"the vault stopped {last} events behind; see engine.log")
        time.sleep(0.1)
