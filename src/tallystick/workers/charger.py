"""The charger: one charge a run in the ledger, by convergence.

It follows the sink, which lists the runs that it touched. A run is due when its end was seen,
or when nothing new came for a while. For due runs it computes what the run should have been
charged from all its facts, lets the ledger post target minus posted, and posts the same delta,
split by dimension, to the analytics side. Every part of that can be repeated: the second time
the difference is zero. So crashes, late events, corrections and retries need no special case.

What was charged for time before the horizon (`analytics/horizon`) is final: a run's target is what
its charge lines of then say, and what its facts since then are charged.

A run that cannot be charged, because its sums are beyond what the ledger takes or the ledger
refuses it, is set aside with an error in the log, and stops no other. It keeps what it was
charged before, in the ledger as in the lines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from tallystick.analytics.store import Attempt, FactStore, LinePlan, Past, RunKey
from tallystick.catalog import Catalog
from tallystick.clock import SECOND, Clock
from tallystick.errors import Conflict, InvalidInput, InvariantBroken
from tallystick.ledger import UNITS_MAX, Ledger, RunTarget
from tallystick.rating import Rater, RunLine, plan_run_target
from tallystick.units import CREDIT, format_amount
from tallystick.workers.loop import Progress
from tallystick.workers.pending import SHARDS, PendingRuns

QUIET_SECONDS = 10
"""A run that never says it ended is charged when it was quiet for so long."""

_CAPTURED_SECONDS = 2
"""A run that was captured for is converged again when the facts of that have landed: sooner,
the capture would be given back, and charged again a moment later."""

_RUNS_PER_STEP_MAX = 2_000
_LINE_UNITS_MAX = 2**62
"""What a charge line can hold of cost and credits, with room for a difference."""

_REFUSALS = (
    InvalidInput,
    Conflict,
    InvariantBroken,
    psycopg.DataError,
    psycopg.IntegrityError,
)
"""What the ledger says of a run that it can never take; an outage says something else."""

_log = logging.getLogger(__name__)
Refusals = dict[RunKey, str]
"""Runs that could not be charged, and why."""


class RunsPlan(NamedTuple):
    """What runs should have been charged in all, by which attempts, and which cannot be."""

    targets: Mapping[RunKey, int]
    lines: LinePlan
    refusals: Refusals
    horizon: int
    """Before which time nothing was planned."""


class _Usage(NamedTuple):
    """What ClickHouse says of runs: attempts since the horizon, and the time before it."""

    attempts: Mapping[RunKey, list[dict[str, Any]]]
    past: Mapping[RunKey, Past]
    horizon: int


_NO_PAST = Past(0, None, 1, is_failed=False)


def _every_shard() -> Sequence[int]:
    return range(SHARDS)


class Charger:
    """Converges the ledger, and the charge lines, to the facts."""

    name = "charger"

    def __init__(
        self,
        pending: PendingRuns,
        facts: FactStore,
        catalog: Catalog,
        ledger: Ledger,
        clock: Clock,
        shards: Callable[[], Sequence[int]] = _every_shard,
    ) -> None:
        self._pending = pending
        self._facts = facts
        self._catalog = catalog
        self._ledger = ledger
        self._clock = clock
        self._shards = shards
        self._rater: Rater | None = None
        self._horizon = 0

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> Progress:
        """Charge what is due."""
        shards = self._shards()
        if not shards:
            return Progress.NOTHING
        self._note_captured()
        now = self._clock.now()
        quiet_since = now - QUIET_SECONDS * SECOND
        due = self._pending.load_due(shards, quiet_since, _RUNS_PER_STEP_MAX, now)
        if not due:
            return Progress.NOTHING
        by_key = {(run.tenant_id, run.charge_key): run for run in due}
        refusals = self.converge(list(by_key))
        self._pending.forget([run for key, run in by_key.items() if key not in refusals])
        if refusals:
            self._pending.refuse({by_key[key]: why for key, why in refusals.items()}, now)
        return Progress.FULL if len(due) == _RUNS_PER_STEP_MAX else Progress.SOME

    def _note_captured(self) -> None:
        """Runs whose holds were captured after their facts had charged them are due again."""
        now = self._clock.now()
        changed_until = now - min(_CAPTURED_SECONDS, QUIET_SECONDS) * SECOND
        stale = self._ledger.load_stale_runs(changed_until=changed_until)
        self._pending.mark_now(dict.fromkeys(stale, True), now)

    def converge(self, runs: list[RunKey]) -> Refusals:
        """Charge each run what its facts say, in the ledger and in the charge lines.

        Returns the runs that could not be charged, with why; nothing was posted for them.
        """
        plan = self._plan(runs)
        refusals = plan.refusals | self._post(list(plan.targets), plan)
        for (tenant, key), why in refusals.items():
            _log.error(
                "run %s of tenant %s cannot be charged and is set aside: %s", key, tenant, why
            )
        return refusals

    def _post(self, runs: list[RunKey], plan: RunsPlan) -> Refusals:
        """Post runs together; when one of them spoils that, each half by itself."""
        if not runs:
            return {}
        try:
            outcomes = self._ledger.converge_run_charges(
                [
                    RunTarget(
                        tenant_id=run[0],
                        run_id=run[1],
                        target_units=plan.targets[run],
                        reason="usage",
                    )
                    for run in runs
                ]
            )
        except _REFUSALS as error:
            if len(runs) == 1:
                return {runs[0]: f"{type(error).__name__}: {error}"}
            middle = len(runs) // 2
            return self._post(runs[:middle], plan) | self._post(runs[middle:], plan)
        new = {(one.tenant_id, one.run_id) for one in outcomes if one.is_first}
        self._facts.post_lines(runs, plan.lines, self._clock.now(), new=new, horizon=plan.horizon)
        return {}

    def _usage(self, runs: list[RunKey]) -> _Usage:
        """What is known of runs, read while the horizon stood still.

        Facts go only after it has moved: as long as it has not, all since it were there.
        """
        while True:
            horizon = self._horizon
            rows = self._facts.query_attempts(runs, horizon)
            past = self._facts.query_past(runs, horizon) if horizon else {}
            self._horizon = self._facts.query_horizon()
            if self._horizon == horizon:
                break
        attempts: dict[RunKey, list[dict[str, Any]]] = {run: [] for run in runs}
        for row in rows:
            attempts[row["tenant_id"], row["charge_key"]].append(row)
        return _Usage(attempts, past, horizon)

    def _plan(self, runs: list[RunKey]) -> RunsPlan:
        """What each run should have been charged in all, and which attempts make it up."""
        self._rater = self._catalog.refresh_rater(self._rater)
        now = self._clock.now()
        usage = self._usage(runs)
        targets: dict[RunKey, int] = {}
        refusals: Refusals = {}
        free: list[Attempt] = []
        late_free: list[Attempt] = []
        wasted: list[Attempt] = []
        for run, rows in usage.attempts.items():
            past = usage.past.get(run, _NO_PAST)
            began = [int(row["began_at"]) for row in rows]
            if past.began_at is not None:
                began.append(past.began_at)
            policy = self._rater.policy_at(run[0], min(began, default=now), now)
            target = plan_run_target(
                [
                    RunLine(row["attempt"], int(row["credit_units"]), int(row["late_credit_units"]))
                    for row in rows
                ],
                run_failed=past.is_failed or any(row["is_failed"] for row in rows),
                policy=policy,
                attempt_last=past.attempt_last,
            )
            target_units = past.credit_units + target.target_units
            if why := _find_excess(target_units, rows):
                refusals[run] = why
                continue
            targets[run] = target_units
            uncharged = {row["attempt"] for row in rows} - target.charged_attempts
            free += [(*run, attempt) for attempt in uncharged]
            wasted += [(*run, attempt) for attempt in target.wasted_attempts]
            if policy.late_events == "free":
                late_free += [(*run, attempt) for attempt in target.charged_attempts]
        return RunsPlan(targets, LinePlan(free, late_free, wasted), refusals, usage.horizon)


def _find_excess(target_units: int, rows: Iterable[Mapping[str, Any]]) -> str:
    """Why a run's sums cannot be posted; empty when they can."""
    if not 0 <= target_units <= UNITS_MAX:
        return (
            f"its charge would be {format_amount(target_units, CREDIT)} credits; "
            f"the ledger takes from 0 to {format_amount(UNITS_MAX, CREDIT)} of one run"
        )
    for name in ("credit_units", "cost_units"):
        if not 0 <= sum(int(row[name]) for row in rows) <= _LINE_UNITS_MAX:
            return f"the sum of its {name} does not fit into a charge line"
    return ""
