"""Alerts of soft budgets: they stop nothing, so the vault tells when a threshold is crossed.

Hard budgets are told of by the ledger's side, at the hold that does not fit. A signal is raised
again while it lasts, and its id says what it is about, so repeats and restarts do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.clock import format_time
from tallystick.enforcement.alerts import Signal, SignalSink
from tallystick.enforcement.vault.model import (
    ASSETS,
    Assignment,
    Connection,
    Threshold,
)
from tallystick.enforcement.vault.rules import is_crossed, percent_used
from tallystick.enforcement.vault.store import VaultStore
from tallystick.units import format_amount


class Thresholds:
    """Tells of thresholds that soft budgets crossed, and when they no longer are."""

    def __init__(self, store: VaultStore, sink: SignalSink) -> None:
        self._store = store
        self._sink = sink
        self._since: dict[str, int] = {}
        """Signal id -> since when it is crossed; 0: it is known to be not."""

    def tell(self, connection: Connection, current: Sequence[Assignment], now: int) -> None:
        """Raise what is crossed, clear what is not (any more)."""
        told: dict[str, int] = {}
        for one in current:
            if one.is_soft and one.thresholds:
                spent = self._store.load_spent(
                    one.tenant_id, one.scope, one.from_at, one.to_at, connection
                ).units(one.asset)
                for threshold in one.thresholds:
                    told |= self._tell_one(connection, one, threshold, spent, now)
        for signal_id in self._since.keys() - told.keys():
            if self._since[signal_id]:
                self._sink.clear(connection, signal_id, now)
        self._since = told

    def _tell_one(
        self, connection: Connection, one: Assignment, threshold: Threshold, spent: int, now: int
    ) -> dict[str, int]:
        signal_id = signal_id_of(one, threshold)
        if is_crossed(threshold.at, one.amount_units, spent):
            since = self._since.get(signal_id) or now
            self._sink.raise_signal(connection, signal_of(one, threshold, spent, since, now))
            return {signal_id: since}
        if self._since.get(signal_id) != 0:
            self._sink.clear(connection, signal_id, now)
        return {signal_id: 0}


def signal_id_of(one: Assignment, threshold: Threshold) -> str:
    """The identity of a threshold in one window."""
    return f"budget:{one.limit_id}/{threshold.at}"


def signal_of(one: Assignment, threshold: Threshold, spent: int, since: int, now: int) -> Signal:
    """What someone should know of a crossed threshold."""
    asset = ASSETS[one.asset]
    assigned = format_amount(one.amount_units, asset)
    is_over = spent >= one.amount_units
    return Signal(
        signal_id=signal_id_of(one, threshold),
        tenant_id=one.tenant_id,
        kind="budget",
        severity="critical" if is_over else "warning",
        who=", ".join(f"{name}={one.scope[name]}" for name in sorted(one.scope)) or one.tenant_id,
        what=f"{percent_used(one.amount_units, spent)}% of a soft budget of {assigned} "
        f"{one.asset} is spent",
        how_much=f"{format_amount(spent, asset)} of {assigned} {one.asset}",
        since=since,
        next_step=f"work goes on; the budget begins anew at {format_time(one.to_at)}",
        how_to_stop=f"raise budget {one.budget_id}, or make it a hard one",
        at=now,
    )
