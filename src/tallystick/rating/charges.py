"""Which of a run's usage is charged: the attempts policy.

A retry is the seller's matter, not the customer's: by default only the last attempt of a
run is charged, and what earlier attempts used is retry waste. The plan is a function of
the set of facts, so it is the same in whatever order they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ChargePolicy(NamedTuple):
    """`attempts`: "last" or "all"; `failed_runs`: "charge" or "free"."""

    attempts: str = "last"
    failed_runs: str = "charge"


class RunLine(NamedTuple):
    """Rated usage of one attempt: credits in CREDIT/6."""

    attempt: int
    credit_units: int


class RunTargetPlan(NamedTuple):
    """What a run should have been charged in all, and which lines count."""

    target_units: int
    counted: tuple[bool, ...]


def plan_run_target(
    lines: Sequence[RunLine], *, run_failed: bool, policy: ChargePolicy
) -> RunTargetPlan:
    """Decide which lines are charged; the target is their sum.

    >>> lines = [RunLine(1, 70), RunLine(2, 100), RunLine(2, 5)]
    >>> plan_run_target(lines, run_failed=False, policy=ChargePolicy()).target_units
    105
    """
    if run_failed and policy.failed_runs == "free":
        return RunTargetPlan(0, (False,) * len(lines))
    last = max((line.attempt for line in lines), default=1)
    counted = tuple(policy.attempts == "all" or line.attempt == last for line in lines)
    total = sum(line.credit_units for line, counts in zip(lines, counted, strict=True) if counts)
    return RunTargetPlan(total, counted)
