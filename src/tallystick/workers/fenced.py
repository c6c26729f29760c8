"""After a failure a follower fences itself off: its own earlier requests may still land.

A request that got no answer may be on its way: a network that stood still delivers it when the
next try has long read back what landed, and the two would count twice. So before the next try
its leases are let go and taken anew, under greater epochs, which ClickHouse hears of first: what
was sent under the former ones lands no more.
"""

from __future__ import annotations

from tallystick.plumbing.leases import Leases
from tallystick.workers.loop import Follower, Progress


class Fenced:
    """A follower that writes to ClickHouse under leases."""

    def __init__(self, follower: Follower, leases: Leases) -> None:
        self.name = follower.name
        self._follower = follower
        self._leases = leases

    def step(self) -> bool | Progress:
        """Do a piece of work; False when there is none."""
        return self._follower.step()

    def recover(self) -> None:
        """Let the leases go, and forget what is only in memory."""
        self._leases.release_all()
        self._follower.recover()
