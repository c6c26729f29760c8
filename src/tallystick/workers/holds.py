"""The hold keeper: holds, leases and lots whose time is over.

A hold whose work never started frees itself. One whose work started becomes unknown and is
settled by the run's facts or, at its deadline, by the account's policy. Repeating a step does
nothing: what ended is no longer due.
"""

from __future__ import annotations

from tallystick.clock import SECOND, Clock
from tallystick.ledger import Ledger

_LOTS_EVERY = 30 * SECOND


class HoldKeeper:
    """Ends what is due."""

    name = "holds"

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lots_at = 0

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """End what is due; False when nothing was."""
        ended = self._ledger.settle_due()
        if self._clock.now() >= self._lots_at:
            expired = self._ledger.expire_lots()
            if not expired:
                self._lots_at = self._clock.now() + _LOTS_EVERY
        return bool(ended)
