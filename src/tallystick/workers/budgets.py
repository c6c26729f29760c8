"""The budget keeper: what happens to budgets as time passes, without anybody asking.

Rolling windows let go what has left them, also where nobody works; what is left over of a
window is carried into the next one; thresholds that were crossed are told. Repeating a step
does nothing.
"""

from __future__ import annotations

from tallystick.clock import SECOND, Clock, Pace
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
        self._carrying = Pace(clock, _CARRY_EVERY)
        self._looking = Pace(clock, 0)

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """One round; False when nothing had changed."""
        rolled = self._ledger.roll_off()
        if self._carrying.is_due():
            self._budgets.refresh_carried()
            self._carrying.done()
        changed = 0
        if self._looking.is_due():
            changed = self._crossings.check()
            self._looking.done()
        return bool(rolled + changed)
