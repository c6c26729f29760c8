"""The budget keeper: what happens to budgets as time passes, without anybody asking.

Rolling windows let go what has left them, also where nobody works; what is left over of a
window is carried into the next one; thresholds that were crossed are told. Repeating a step
does nothing.
"""

from __future__ import annotations

from tallystick.clock import SECOND, Clock, is_over, rest_between
from tallystick.enforcement.budgets import Budgets
from tallystick.enforcement.budgets.crossing import Crossings
from tallystick.ledger import Ledger

_CARRY_EVERY = 10 * SECOND


class BudgetKeeper:
    """Keeps windows and thresholds."""

    name = "budgets"

    def __init__(
        self, ledger: Ledger, budgets: Budgets, crossings: Crossings, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._budgets = budgets
        self._crossings = crossings
        self._clock = clock
        self._carried_at = self._carry_rest = 0
        self._looked_at = self._look_rest = 0

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """One round; False when nothing had changed."""
        rolled = self._ledger.roll_off()
        now = self._clock.now()
        if is_over(self._carry_rest, self._carried_at, now):
            self._budgets.refresh_carried()
            self._carried_at = now
            self._carry_rest = rest_between(now, self._clock.now(), _CARRY_EVERY)
        changed, now = 0, self._clock.now()
        if is_over(self._look_rest, self._looked_at, now):
            changed = self._crossings.check()
            self._looked_at, self._look_rest = now, rest_between(now, self._clock.now(), 0)
        return bool(rolled + changed)
