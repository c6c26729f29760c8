"""Routing: which targets are tried for a model, in which order, and when to stop.

Pure: time and randomness are passed in. A breaker opens after FAILURES_MAX failures in a
row and lets one call through after its rest; retries draw on a budget that only first
attempts fill, so that a failing upstream is not hit harder than a healthy one. A 429 is no
failure: it rests one model at one upstream for one tenant, for as long as it says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from tallystick.clock import SECOND, is_over
from tallystick.gateway.settings import GatewaySettings, Target, Upstream

FAILURES_MAX = 5
REST = 10 * SECOND
RETRIES_SAVED_MAX = 10.0
_RETRYABLE = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
REST_LIMITED_MAX = 60 * SECOND
_DELAY_FIRST = SECOND // 10
_DELAY_MAX = 2 * SECOND


class Choice(NamedTuple):
    """A model at an upstream that may be tried."""

    upstream: Upstream
    model: str


class BreakerState(NamedTuple):
    """Failures in a row, when the breaker opened (micros; 0: it is closed), and its last trial."""

    failures: int = 0
    opened_at: int = 0
    tried_at: int = 0


CLOSED = BreakerState()


def may_try(state: BreakerState, now: int) -> bool:
    """Whether a call may go through: closed, or open long enough for one to look."""
    return not state.opened_at or is_over(REST, max(state.opened_at, state.tried_at), now)


def after_trial(state: BreakerState, now: int) -> BreakerState:
    """An open breaker lets one call look; the others wait for another rest."""
    return state._replace(tried_at=now) if state.opened_at else state


def without_trial(state: BreakerState) -> BreakerState:
    """The call that was let through was not sent: another one may look."""
    return state._replace(tried_at=0)


def after_failure(state: BreakerState, now: int) -> BreakerState:
    """Count a failure; open at the limit.

    >>> after_failure(BreakerState(4), 7)
    BreakerState(failures=5, opened_at=7, tried_at=0)
    """
    failures = state.failures + 1
    return BreakerState(failures, now if failures >= FAILURES_MAX else 0)


def rest_limited(retry_after: str) -> int:
    """Micros to leave a target alone that answered 429; what names no seconds is one second.

    >>> rest_limited("7"), rest_limited("86400"), rest_limited("Sat, 21 Nov 2026 16:00:00 GMT")
    (7000000, 60000000, 1000000)
    """
    is_seconds = retry_after.isascii() and retry_after.isdecimal() and len(retry_after) < 10
    return min(int(retry_after) * SECOND if is_seconds else SECOND, REST_LIMITED_MAX)


class RetryBudget(NamedTuple):
    """Retries that may still be made."""

    saved: float = RETRIES_SAVED_MAX

    def after_first(self, share: float) -> RetryBudget:
        """A first attempt earns a share of a retry."""
        return RetryBudget(min(self.saved + share, RETRIES_SAVED_MAX))

    def after_retry(self) -> RetryBudget | None:
        """Take one; None when there is none."""
        return RetryBudget(self.saved - 1.0) if self.saved >= 1.0 else None


def is_retryable(status: int) -> bool:
    """Whether another target, or another try, may answer where this one did not."""
    return status in _RETRYABLE


def delay_before(retry: int, random: float) -> int:
    """Micros to wait before the retry of this number (from 1): doubled, with full jitter."""
    return int(min(_DELAY_FIRST << (retry - 1), _DELAY_MAX) * random)


def is_allowed(model: str, patterns: Sequence[str]) -> bool:
    """Whether a name matches one of the patterns (* stands for any text)."""
    return any(model == pattern or fnmatchcase(model, pattern) for pattern in patterns)


def order_by_weight(targets: Sequence[Target], random: float) -> list[Target]:
    """One target by weight, then the others in the order that they are written.

    >>> [t.model for t in order_by_weight([Target("a", "x", 9), Target("a", "y", 1)], 0.95)]
    ['y', 'x']
    """
    if len(targets) == 1:
        return list(targets)
    left = random * sum(target.weight for target in targets)
    for index, target in enumerate(targets):
        left -= target.weight
        if left < 0:
            return [target, *targets[:index], *targets[index + 1 :]]
    return list(targets)


def plan_choices(
    settings: GatewaySettings, speaks: str, model: str, random: float
) -> tuple[list[Choice], int]:
    """The choices for a model in order, and how many further attempts may be made."""
    route = settings.routes.get(model)
    if route is None:
        direct = [
            Choice(upstream, model)
            for upstream in settings.upstreams.values()
            if upstream.answers(speaks) and is_allowed(model, upstream.models)
        ]
        return usable(direct[:1]), settings.retries
    if route.is_off:
        return [], 0
    targets = [*order_by_weight(route.targets, random), *route.fallbacks]
    return choices_of(settings.upstreams, speaks, model, targets), route.retries


def choices_of(
    upstreams: Mapping[str, Upstream], speaks: str, model: str, targets: Sequence[Target]
) -> list[Choice]:
    """Targets that can answer on this surface and are not switched off."""
    choices = [Choice(upstreams[target.upstream], target.model or model) for target in targets]
    return usable([choice for choice in choices if choice.upstream.answers(speaks)])


def usable(choices: Sequence[Choice]) -> list[Choice]:
    """Without what is switched off."""
    return [choice for choice in choices if not choice.upstream.is_off]
