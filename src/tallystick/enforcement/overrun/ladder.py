"""The mitigation ladder: which step follows on an overrun, and which steps concern an ask.

Pure. alert -> throttle -> downgrade -> block -> kill. Nothing but the alert happens by itself
unless a policy says so: a wrong alarm must not stop a business. A policy names for each step how
bad the overrun is, and for how long, before the step is taken; the highest one that is due
counts, and a step that was undone by hand is not taken again for the same overrun.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tallystick.clock import SECOND
from tallystick.enforcement.attribution import named
from tallystick.enforcement.overrun.model import Mitigation, Overrun, Policy, Rung, Severity, Step

_SEVERITIES = tuple(Severity)
_STEPS = tuple(Step)


def is_as_bad(severity: Severity, as_bad_as: Severity) -> bool:
    """Compare severities.

    >>> is_as_bad(Severity.CRITICAL, Severity.WARNING)
    True
    """
    return _SEVERITIES.index(severity) >= _SEVERITIES.index(as_bad_as)


def policy_for(overrun: Overrun, policies: Iterable[Policy]) -> Policy | None:
    """The closest policy of the overrun's tenant: value before dimension before tenant."""
    fitting = [
        policy
        for policy in policies
        if policy.tenant_id == overrun.tenant_id
        and policy.dimension in ("", overrun.dimension)
        and policy.value in ("", overrun.value)
    ]
    return max(fitting, key=lambda one: (one.value != "", one.dimension != ""), default=None)


def plan_step(
    overrun: Overrun, policy: Policy | None, taken: Sequence[Mitigation], now: int
) -> Rung | None:
    """The step that is due now and was not taken for this overrun yet; None: wait.

    `now` is event time. A step in force for longer than its time is taken anew; one that was
    undone is not, nor is any milder one.
    """
    if policy is None or overrun.closed_at is not None:
        return None
    due = [
        rung
        for rung in policy.steps
        if rung.step != Step.ALERT
        and is_as_bad(overrun.severity, rung.severity)
        and now - overrun.seen_at >= rung.after_seconds * SECOND
    ]
    if not due:
        return None
    rung = max(due, key=lambda one: _STEPS.index(one.step))
    blocking = [one for one in taken if one.ended_at is None or one.ended_at < one.expires_at]
    if any(_STEPS.index(one.step) >= _STEPS.index(rung.step) for one in blocking):
        return None
    return rung


def next_step(overrun: Overrun, policy: Policy | None, now: int) -> str:
    """What will happen if nobody acts, for people."""
    coming = [
        (rung.after_seconds * SECOND - (now - overrun.seen_at), rung)
        for rung in (policy.steps if policy else ())
        if rung.step != Step.ALERT and is_as_bad(overrun.severity, rung.severity)
    ]
    waiting = [(left, rung) for left, rung in coming if left > 0]
    if waiting:
        left, rung = min(waiting, key=lambda one: one[0])
        return f"{rung.step} in {max(left // SECOND, 1)} s for {rung.ttl_seconds} s"
    if coming:
        rung = max((rung for _, rung in coming), key=lambda one: _STEPS.index(one.step))
        return f"{rung.step} is in force; it ends after {rung.ttl_seconds} s or by undo"
    return "nothing by itself: no automatic step is set for this scope; it goes on spending"


class Active:
    """The steps in force, found by what an ask says of itself.

    A mitigation is filed under one pair of its scope, so an ask looks up its own pairs only,
    however many mitigations there are.
    """

    def __init__(self, mitigations: Iterable[Mitigation]) -> None:
        self._filed: dict[tuple[str, str, str], list[Mitigation]] = {}
        for mitigation in mitigations:
            dimension, value = min(mitigation.scope.items(), default=("", ""))
            filed = self._filed.setdefault((mitigation.tenant_id, dimension, value), [])
            filed.append(mitigation)

    @property
    def has_any(self) -> bool:
        """Whether any step is in force at all."""
        return bool(self._filed)

    def matching(
        self, tenant_id: str, attribution: Mapping[str, str], now: int
    ) -> list[Mitigation]:
        """Steps that concern an ask, sternest first."""
        if not self._filed:
            return []
        own = {**named(attribution), "tenant": tenant_id}
        found = [
            mitigation
            for tenant in {tenant_id, ""}
            for dimension, value in (("", ""), *own.items())
            for mitigation in self._filed.get((tenant, dimension, value), ())
            if mitigation.starts_at <= now < mitigation.expires_at
            and all(own.get(name) == wanted for name, wanted in mitigation.scope.items())
        ]
        return sorted(found, key=lambda one: -_STEPS.index(one.step))
