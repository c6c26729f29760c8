"""Which upstreams are in order: breakers, calls under way and the retry budget, in memory.

A rate limit is of one key and model, so what it rests is the target of one tenant: the others
go on, and the breaker, which is everyone's, hears that the upstream answers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from tallystick.clock import SECOND, Clock
from tallystick.gateway.routing import (
    CLOSED,
    REST_LIMITED_MAX,
    BreakerState,
    Choice,
    RetryBudget,
    after_failure,
    after_trial,
    may_try,
    rest_limited,
    without_trial,
)
from tallystick.gateway.settings import Upstream


class Health:
    """Counts what happens at each upstream; one process's own view."""

    def __init__(self, clock: Clock, retry_share: float, random: Callable[[], float]) -> None:
        self._clock = clock
        self._share = retry_share
        self.random = random
        self._breakers: dict[str, BreakerState] = {}
        self._rests: dict[tuple[str, str, str], int] = {}
        self._under_way: defaultdict[str, int] = defaultdict(int)
        self._budget = RetryBudget()

    def take(self, choice: Choice, tenant_id: str) -> bool:
        """Take a place at an upstream, if it is in order and not full; give it back after."""
        upstream = choice.upstream
        state = self._breakers.get(upstream.name, CLOSED)
        now = self._clock.now()
        if not may_try(state, now) or self._rest_end(choice, tenant_id, now):
            return False
        if upstream.concurrency_max and self._under_way[upstream.name] >= upstream.concurrency_max:
            return False
        if state.opened_at:
            self._breakers[upstream.name] = after_trial(state, now)
        self._under_way[upstream.name] += 1
        return True

    def take_next(self, choices: Sequence[Choice], last: int | None, tenant_id: str) -> int | None:
        """Take the next that is in order, from the one after the last on, then around; where."""
        first = 0 if last is None else last + 1
        places = ((first + step) % len(choices) for step in range(len(choices)))
        return next((place for place in places if self.take(choices[place], tenant_id)), None)

    def give_back(self, upstream: Upstream, *, is_sent: bool = True) -> None:
        """A call ended; one that was not sent, such as one without money, has tried nothing."""
        self._under_way[upstream.name] -= 1
        state = self._breakers.get(upstream.name)
        if state is not None and not is_sent:
            self._breakers[upstream.name] = without_trial(state)

    def succeeded(self, upstream: Upstream) -> None:
        """It answered, if only to refuse: the breaker closes, and failures count anew."""
        self._breakers.pop(upstream.name, None)

    def failed(self, upstream: Upstream) -> None:
        """It did not answer, or said that it cannot."""
        state = self._breakers.get(upstream.name, CLOSED)
        self._breakers[upstream.name] = after_failure(state, self._clock.now())

    def limited(self, choice: Choice, tenant_id: str, retry_after: str) -> None:
        """It answered 429: this target rests for this tenant; the upstream is in order."""
        self.succeeded(choice.upstream)
        now = self._clock.now()
        self._rests = {target: until for target, until in self._rests.items() if until > now}
        self._rests[_target(choice, tenant_id)] = now + rest_limited(retry_after)

    def rest_seconds(self, choices: Sequence[Choice], tenant_id: str) -> int:
        """Until the first of these that rest may be tried; 0 when none rests."""
        now = self._clock.now()
        ends = [self._rest_end(choice, tenant_id, now) for choice in choices]
        return -(-min((end - now for end in ends if end), default=0) // SECOND)

    def _rest_end(self, choice: Choice, tenant_id: str, now: int) -> int:
        """When a target's rest ends; 0 when it has none, as when the clock stepped back since."""
        end = self._rests.get(_target(choice, tenant_id), 0)
        return end if now < end <= now + REST_LIMITED_MAX else 0

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


def _target(choice: Choice, tenant_id: str) -> tuple[str, str, str]:
    return choice.upstream.name, choice.model, tenant_id
