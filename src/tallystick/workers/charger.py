"""The charger: one charge a run in the ledger, by convergence.

It follows the sink, which lists the runs that it touched. A run is due when its end was seen,
or when nothing new came for a while. For due runs it computes what the run should have been
charged from all its facts, lets the ledger post target minus posted, and posts the same delta,
split by dimension, to the analytics side. Every part of that can be repeated: the second time
the difference is zero. So crashes, late events, corrections and retries need no special case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tallystick.analytics.store import Attempt, FactStore, LinePlan, RunKey
from tallystick.catalog import Catalog
from tallystick.clock import SECOND, Clock
from tallystick.ledger import Ledger, RunTarget
from tallystick.rating import Rater, RunLine, plan_run_target
from tallystick.workers.loop import Progress
from tallystick.workers.pending import SHARDS, PendingRuns

QUIET_SECONDS = 10
"""A run that never says it ended is charged when it was quiet for so long."""

_CAPTURED_SECONDS = 2
"""A run that was captured for is converged again when the facts of that have landed: sooner,
the capture would be given back, and charged again a moment later."""

_RUNS_PER_STEP_MAX = 2_000


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

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> Progress:
        """Charge what is due."""
        shards = self._shards()
        if not shards:
            return Progress.NOTHING
        self._note_captured()
        quiet_since = self._clock.now() - QUIET_SECONDS * SECOND
        due = self._pending.load_due(shards, quiet_since, _RUNS_PER_STEP_MAX)
        if not due:
            return Progress.NOTHING
        self.converge([(run.tenant_id, run.charge_key) for run in due])
        self._pending.forget(due)
        return Progress.FULL if len(due) == _RUNS_PER_STEP_MAX else Progress.SOME

    def _note_captured(self) -> None:
        """Runs whose holds were captured after their facts had charged them are due again."""
        now = self._clock.now()
        changed_until = now - min(_CAPTURED_SECONDS, QUIET_SECONDS) * SECOND
        stale = self._ledger.load_stale_runs(changed_until=changed_until)
        self._pending.mark_now(dict.fromkeys(stale, True), now)

    def converge(self, runs: list[RunKey]) -> None:
        """Charge each run what its facts say, in the ledger and in the charge lines."""
        targets, plan = self._plan(runs)
        outcomes = self._ledger.converge_run_charges(
            [
                RunTarget(tenant_id=tenant, run_id=key, target_units=units, reason="usage")
                for (tenant, key), units in targets.items()
            ]
        )
        new = {(one.tenant_id, one.run_id) for one in outcomes if one.is_first}
        self._facts.post_lines(runs, plan, self._clock.now(), new=new)

    def _plan(self, runs: list[RunKey]) -> tuple[dict[RunKey, int], LinePlan]:
        """What each run should have been charged in all, and which attempts make it up."""
        self._rater = self._catalog.refresh_rater(self._rater)
        now = self._clock.now()
        by_run: dict[RunKey, list[dict[str, Any]]] = {run: [] for run in runs}
        for row in self._facts.query_attempts(runs):
            by_run[row["tenant_id"], row["charge_key"]].append(row)
        targets: dict[RunKey, int] = {}
        free: list[Attempt] = []
        late_free: list[Attempt] = []
        wasted: list[Attempt] = []
        for run, rows in by_run.items():
            began_at = min((int(row["began_at"]) for row in rows), default=now)
            policy = self._rater.policy_at(run[0], began_at, now)
            target = plan_run_target(
                [
                    RunLine(row["attempt"], int(row["credit_units"]), int(row["late_credit_units"]))
                    for row in rows
                ],
                run_failed=any(row["is_failed"] for row in rows),
                policy=policy,
            )
            targets[run] = target.target_units
            uncharged = {row["attempt"] for row in rows} - target.charged_attempts
            free += [(*run, attempt) for attempt in uncharged]
            wasted += [(*run, attempt) for attempt in target.wasted_attempts]
            if policy.late_events == "free":
                late_free += [(*run, attempt) for attempt in target.charged_attempts]
        return targets, LinePlan(free, late_free, wasted)
