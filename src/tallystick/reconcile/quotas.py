"""Reconcile quotas: what the vault counted against what analytics counted, to the nano-dollar.

Both follow the log on ways of their own. A difference while one of them is behind the other is
lag, and says nothing; one while both stood at the same positions before and after they were
asked is a mismatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tallystick.analytics.horizon import KeptFacts
from tallystick.clock import DAY, format_time
from tallystick.enforcement.vault import VaultStore
from tallystick.enforcement.vault.model import FOLLOWER
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import Positions
from tallystick.plumbing.sql import load_statements
from tallystick.units import USD, format_amount

_SQL = load_statements("tallystick.reconcile", "quotas.sql")
_KEYS = ("tenant_id", "user_id", "project_id", "model", "day")
_COMPARED = ("usd_units", "tokens_input", "tokens_output", "requests", "errors", "events")
_SHOWN_MAX = 100

Key = tuple[Any, ...]
Sums = dict[Key, dict[str, int]]


class QuotaReconciler:
    """Compares the vault with analytics."""

    def __init__(self, vault: VaultStore, store: ClickHouse, positions: Positions) -> None:
        self._vault = vault
        self._store = store
        self._positions = positions

    def report(self, from_at: int, to_at: int, tenant_id: str = "") -> dict[str, Any]:
        """Totals of both over [from, to), cut to whole days (UTC), and what differs.

        From the horizon on: days of before it have no facts to be compared with.
        """
        from_at = max(from_at, KeptFacts(self._store).query_horizon().horizon_at)
        from_at, to_at = from_at // DAY * DAY, -(-to_at // DAY) * DAY
        before = self._stand()
        ours = _by_key(self._vault.load_days(tenant_id, from_at, to_at))
        parameters = {"from_at": from_at, "to_at": to_at, "tenant_id": tenant_id}
        theirs = _by_key(self._store.query_rows(_SQL["query_days"], parameters))
        is_settled = before == self._stand() and before[0] == before[1]
        kind = "mismatch" if is_settled else "lag"
        found = differences(ours, theirs)
        return {
            "agrees": not found,
            "is_settled": is_settled,
            "from": format_time(from_at),
            "to": format_time(to_at),
            "compared": len(ours.keys() | theirs.keys()),
            "vault_usd": _total(ours),
            "analytics_usd": _total(theirs),
            "differing": len(found),
            "differences": [{**one, "kind": kind} for one in found[:_SHOWN_MAX]],
        }

    def _stand(self) -> tuple[dict[int, int], dict[int, int]]:
        """Where both are."""
        stands = [
            {partition: one.offset for partition, one in self._positions.load(name).items()}
            for name in (FOLLOWER, "sink")
        ]
        return stands[0], stands[1]


def differences(ours: Sums, theirs: Sums) -> list[dict[str, Any]]:
    """Where two sides differ, and in what, in order."""
    found = []
    nothing = dict.fromkeys(_COMPARED, 0)
    for key in sorted(ours.keys() | theirs.keys()):
        vault, analytics = ours.get(key, nothing), theirs.get(key, nothing)
        differing = [name for name in _COMPARED if vault[name] != analytics[name]]
        if differing:
            named = dict(zip(_KEYS, key, strict=True))
            found.append(
                {
                    **named,
                    "day": format_time(named["day"] * DAY)[:10],
                    "vault": {name: vault[name] for name in differing},
                    "analytics": {name: analytics[name] for name in differing},
                }
            )
    return found


def _by_key(rows: Iterable[Mapping[str, Any]]) -> Sums:
    return {
        (*(row[name] for name in _KEYS[:-1]), int(row["day"])): {
            name: int(row[name]) for name in _COMPARED
        }
        for row in rows
    }


def _total(sums: Sums) -> str:
    return format_amount(sum(one["usd_units"] for one in sums.values()), USD)
