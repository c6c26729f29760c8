"""Which upstreams are in order: breakers, calls under way and the retry budget, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from tallystick.clock import Clock
from tallystick.gateway.routing import (
    CLOSED,
    BreakerState,
    Choice,
    RetryBudget,
    after_failure,
    after_trial,
    may_try,
)
from tallystick.gateway.settings import Upstream


class Health:
    """Counts what happens at each upstream; one process's own view."""

    def __init__(self, clock: Clock, retry_share: float, random: Callable[[], float]) -> None:
        self._clock = clock
        self._share = retry_share
        self.random = random
        self._breakers: dict[str, BreakerState] = {}
        self._under_way: defaultdict[str, int] = defaultdict(int)
        self._budget = RetryBudget()

    def take(self, choice: Choice) -> bool:
        """Take a place at an upstream, if it is in order and not full; give it back after."""
        upstream = choice.upstream
        state = self._breakers.get(upstream.name, CLOSED)
        now = self._clock.now()
        if not may_try(state, now):
            return False
        if upstream.concurrency_max and self._under_way[upstream.name] >= upstream.concurrency_max:
            return False
        if state.opened_at:
            self._breakers[upstream.name] = after_trial(state, now)
        self._under_way[upstream.name] += 1
        return True

    def give_back(self, upstream: Upstream) -> None:
        """A call ended."""
        self._under_way[upstream.name] -= 1

    def succeeded(self, upstream: Upstream) -> None:
        """It answered: the breaker closes."""
        self._breakers.pop(upstream.name, None)

    def failed(self, upstream: Upstream) -> None:
        """It did not answer, or said that it cannot."""
        state = self._breakers.get(upstream.name, CLOSED)
        self._breakers[upstream.name] = after_failure(state, self._clock.now())

    def began(self) -> None:
        """A first attempt was made."""
        self._budget = self._budget.after_first(self._share)

    def may_retry(self) -> bool:
        """Take one retry from the budget."""
        left = self._budget.after_retry()
        if left is None:
            return False
        self._budget = left
        return True
