"""How processes of one role share its work: lanes for one at a time, shards for each."""

from __future__ import annotations

from tallystick.plumbing.leases import Leases
from tallystick.workers.loop import Follower, Progress


class Alone:
    """A follower that runs in one process at a time: in the one that has its lease."""

    def __init__(self, follower: Follower, leases: Leases) -> None:
        self.name = follower.name
        self._follower = follower
        self._leases = leases
        self._lease = f"lane/{follower.name}"

    def recover(self) -> None:
        """Forget what is only in memory."""
        self._follower.recover()

    def step(self) -> bool | Progress:
        """Do a piece of work; False when there is none, or another process does it."""
        if self._leases.left(self._lease) <= 0:
            if not self._leases.take([self._lease]):
                return False
            self._follower.recover()
        self._leases.keep([self._lease])
        return self._follower.step()
