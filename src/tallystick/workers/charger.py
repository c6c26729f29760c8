"""The charger: one charge a run in the ledger, by convergence.

It follows the sink, which lists the runs that it touched. A run is due when its end was seen,
or when nothing new came for a while. For due runs it computes what the run should have been
charged from all its facts, lets the ledger post target minus posted, and posts the same delta,
split by dimension, to the analytics side. Every part of that can be repeated: the second time
the difference is zero. So crashes, late events, corrections and retries need no special case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from tallystick.analytics.stats import micros_of
from tallystick.analytics.store import LINE_KEYS, FactStore, RunKey
from tallystick.catalog import Catalog
from tallystick.clock import SECOND, Clock, to_datetime
from tallystick.ledger import Ledger, RunTarget
from tallystick.rating import Rater, RunLine, plan_run_target
from tallystick.workers.pending import SHARDS, PendingRuns

QUIET_SECONDS = 10
"""A run that never says it ended is charged when it was quiet for so long."""

_RUNS_PER_STEP_MAX = 2_000
_UNITS = ("credit_units", "waste_credit_units", "waste_cost_units")
_Line = dict[str, Any]
_Sums = dict[tuple[Any, ...], list[int]]
"""Line key -> [charged credits, wasted credits, wasted cost]."""


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

    def step(self) -> bool:
        """Charge what is due; False when nothing was."""
        shards = self._shards()
        if not shards:
            return False
        self._note_captured()
        quiet_since = self._clock.now() - QUIET_SECONDS * SECOND
        due = self._pending.load_due(shards, quiet_since, _RUNS_PER_STEP_MAX)
        if not due:
            return False
        self.converge([(run.tenant_id, run.charge_key) for run in due])
        self._pending.forget(due)
        return True

    def _note_captured(self) -> None:
        """Runs whose holds were captured after their facts had charged them are due again."""
        stale = self._ledger.load_stale_runs()
        self._pending.mark_now(dict.fromkeys(stale, True), self._clock.now())

    def converge(self, runs: list[RunKey]) -> None:
        """Charge each run what its facts say, in the ledger and in the charge lines."""
        lines = self._target_lines(runs)
        self._ledger.converge_run_charges(
            [
                RunTarget(
                    tenant_id=run[0],
                    run_id=run[1],
                    target_units=sum(units for units, _, _ in lines[run].values()),
                    reason="usage",
                )
                for run in runs
            ]
        )
        self._post_lines(runs, lines)

    def _target_lines(self, runs: list[RunKey]) -> dict[RunKey, _Sums]:
        """What each run should have been charged, and what its retries wasted, by line."""
        self._rater = self._catalog.refresh_rater(self._rater)
        now = self._clock.now()
        by_run: dict[RunKey, list[_Line]] = defaultdict(list)
        for row in self._facts.query_run_lines(runs):
            by_run[row["tenant_id"], row["charge_key"]].append(row)
        targets: dict[RunKey, _Sums] = {}
        for run in runs:
            rows = by_run[run]
            target = plan_run_target(
                [
                    RunLine(row["attempt"], int(row["credit_units"]), int(row["late_credit_units"]))
                    for row in rows
                ],
                run_failed=any(row["is_failed"] for row in rows),
                policy=self._rater.policy_at(run[0], _began_at(rows, now), now),
            )
            sums: _Sums = defaultdict(lambda: [0, 0, 0])
            for row, charged in zip(rows, target.charged_units, strict=True):
                line = sums[_line_key(row)]
                line[0] += charged
                if row["attempt"] in target.wasted_attempts:
                    line[1] += int(row["credit_units"])
                    line[2] += int(row["cost_units"])
            targets[run] = sums
        return targets

    def _post_lines(self, runs: list[RunKey], lines: dict[RunKey, _Sums]) -> None:
        deltas: _Sums = defaultdict(lambda: [0, 0, 0])
        for run in runs:
            for key, units in lines[run].items():
                deltas[(*run, *key)] = units
        for row in self._facts.query_charged_lines(runs):
            line = deltas[row["tenant_id"], row["charge_key"], *_line_key(row)]
            for place, name in enumerate(_UNITS):
                line[place] -= int(row[name])
        changed = [(key, units) for key, units in deltas.items() if any(units)]
        if changed:
            self._facts.append("charges", self._lines_table(changed))

    def _lines_table(self, changed: list[tuple[tuple[Any, ...], list[int]]]) -> pa.Table:
        names = ("tenant_id", "charge_key", *LINE_KEYS)
        columns = dict(zip(names, zip(*(key for key, _ in changed), strict=True), strict=True))
        arrays = {name: pa.array(columns[name], pa.string()) for name in names}
        arrays["bucket_at"] = arrays["bucket_at"].cast(pa.timestamp("s"))
        for place, name in enumerate(_UNITS):
            arrays[name] = pa.array([units[place] for _, units in changed], pa.int64())
        posted_at = to_datetime(self._clock.now())
        arrays["posted_at"] = pa.array([posted_at] * len(changed), pa.timestamp("us", tz="UTC"))
        return pa.table(arrays)


def _began_at(rows: Sequence[_Line], now: int) -> int:
    return min((micros_of(row["bucket_at"]) for row in rows), default=now)


def _line_key(row: _Line) -> tuple[Any, ...]:
    return tuple(row[name] for name in LINE_KEYS)
