"""Crossings: a threshold of a budget that is reached is told once a window, and taken back.

The signal is raised in the transaction that remembers the crossing, so it is told once, also
when this dies in between.
"""

from __future__ import annotations

import shlex
from decimal import Decimal

from psycopg_pool import ConnectionPool

from tallystick.clock import Clock, format_time
from tallystick.enforcement.alerts import Signal, SignalSink
from tallystick.enforcement.budgets import store
from tallystick.enforcement.budgets.model import Budget, WindowView
from tallystick.enforcement.budgets.showing import amount_text
from tallystick.plumbing.postgres import transaction

_CROSSINGS_MAX = 200
_SEVERITIES = {"alert": "warning", "throttle": "warning", "downgrade": "warning"}
_NEXT_STEPS = {
    "alert": "nothing yet; at 100 percent work is declined if the budget is hard",
    "throttle": "the rest is given out evenly until the window ends; what is too early waits",
    "downgrade": "work is answered by a cheaper model until the window ends",
    "block": "work is declined until the window ends or the budget is raised",
}


class Crossings:
    """Finds thresholds that were crossed or are over."""

    def __init__(self, pool: ConnectionPool, sink: SignalSink | None, clock: Clock) -> None:
        """Without a sink crossings are only remembered."""
        self._pool = pool
        self._sink = sink
        self._clock = clock

    def check(self) -> int:
        """Raise and clear; how many changed."""
        now = self._clock.now()
        with transaction(self._pool) as connection:
            cleared = store.clear_crossings(connection, now)
            crossed = store.load_crossed(connection, now, _CROSSINGS_MAX)
            for limit_id, at in cleared:
                if self._sink is not None:
                    self._sink.clear(connection, signal_id_of(limit_id, at), now)
            views = {
                one.limit_id: one
                for one in store.load_windows(connection, [limit_id for limit_id, *_ in crossed])
            }
            for limit_id, at, action, total in crossed:
                store.upsert_crossing(connection, limit_id, at, total, now)
                view = views[limit_id]
                budget = store.load_budget(connection, view.tenant_id, view.budget_id)
                if self._sink is not None and budget is not None:
                    self._sink.raise_signal(connection, signal_of(budget, view, at, action, now))
        return len(cleared) + len(crossed)


def signal_id_of(limit_id: str, at: Decimal) -> str:
    """One signal for each budget, window and threshold."""
    return f"{limit_id}/{at.normalize():f}"


def signal_of(budget: Budget, view: WindowView, at: Decimal, action: str, now: int) -> Signal:
    """What people are told: who, how much, since when, what will happen, how to stop it."""
    terms = budget.terms
    scope = {**terms.scope, **view.each}
    asset = terms.asset
    until = "rolling" if view.end_at is None else f"until {format_time(view.end_at)}"
    words = ("tallystick", "budget", "set", budget.budget_id, "--tenant", budget.tenant_id)
    command = shlex.join(words)  # names may have any character, and people paste it
    steps = "nothing: the budget is in shadow mode" if terms.is_shadow else _NEXT_STEPS[action]
    return Signal(
        signal_id=signal_id_of(view.limit_id, at),
        tenant_id=budget.tenant_id,
        kind="budget",
        severity="info" if terms.is_shadow else _SEVERITIES.get(action, "critical"),
        who=", ".join(f"{name}={value}" for name, value in sorted(scope.items())) or "all",
        what=f"budget {budget.budget_id} passed {at * 100:.0f} percent ({until})",
        how_much=f"{amount_text(view.used + view.held, asset)} {asset} used or held of "
        f"{amount_text(terms.amount + view.carried, asset)}",
        since=now,
        next_step=steps,
        how_to_stop=f"{command} --amount MORE, or stop the work",
        at=now,
    )
