"""Which of a run's usage is charged: the attempts policy.

A retry is the seller's matter, not the customer's: by default only the last attempt of a
run is charged, and what earlier attempts used is retry waste. The plan is a function of
the set of facts, so it is the same in whatever order they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class ChargePolicy(NamedTuple):
    """What of a run is charged.

    `attempts`: "last" or "all"; `failed_runs`: "charge" or "free"; `late_events` (usage that
    arrived more than 7 days after it happened): "charge" or "free".
    """

    attempts: str = "last"
    failed_runs: str = "charge"
    late_events: str = "charge"


class RunLine(NamedTuple):
    """Rated usage of an attempt: credits in CREDIT/6, and how many of them came late."""

    attempt: int
    credit_units: int
    late_credit_units: int = 0


class RunTargetPlan(NamedTuple):
    """What a run should have been charged in all, by which attempts, and which were waste."""

    target_units: int
    charged_attempts: frozenset[int]
    wasted_attempts: frozenset[int]
    """Attempts before the last one: what they used is the cost of retries, charged or not."""


def plan_run_target(
    lines: Sequence[RunLine], *, run_failed: bool, policy: ChargePolicy, attempt_last: int = 1
) -> RunTargetPlan:
    """Decide what of each line is charged; the target is their sum.

    `attempt_last`: of lines that are not given any more.

    >>> lines = [RunLine(1, 70), RunLine(2, 100), RunLine(2, 5)]
    >>> plan = plan_run_target(lines, run_failed=False, policy=ChargePolicy())
    >>> plan.target_units, sorted(plan.wasted_attempts)
    (105, [1])
    """
    last = max((line.attempt for line in lines), default=1)
    last = max(last, attempt_last)
    attempts = frozenset(line.attempt for line in lines)
    wasted = attempts - {last}
    charged = attempts if policy.attempts == "all" else attempts - wasted
    if run_failed and policy.failed_runs == "free":
        charged = frozenset()
    target = sum(_charged(line, policy) for line in lines if line.attempt in charged)
    return RunTargetPlan(target, charged, wasted)


def _charged(line: RunLine, policy: ChargePolicy) -> int:
    return line.credit_units - (line.late_credit_units if policy.late_events == "free" else 0)
