"""The overrun lane: watches what facts add to each scope's minutes, and answers.

A step takes in what landed since the last one, judges the series that changed, and writes down
in one transaction what ran away, what recovered, the signals of both, and the steps of the
ladder that a policy asks for. Series are in memory alone: a new process builds them again from
the hourly rollup and the facts of the last hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from tallystick.analytics.store import Offsets
from tallystick.bounds import REASON_LENGTH_MAX
from tallystick.clock import HOUR, MINUTE, Clock
from tallystick.enforcement.alerts import Signal, SignalSink
from tallystick.enforcement.overrun.ladder import next_step, plan_step, policy_for
from tallystick.enforcement.overrun.model import Kind, Overrun, Policy, SeriesKey
from tallystick.enforcement.overrun.reader import SeriesReader
from tallystick.enforcement.overrun.series import HOURS_KEPT
from tallystick.enforcement.overrun.service import Mitigations, Unheard
from tallystick.enforcement.overrun.store import OverrunStore
from tallystick.enforcement.overrun.watch import Said, Watch
from tallystick.ids import IdSource
from tallystick.plumbing.postgres import transaction
from tallystick.units import USD, format_amount

OFFSETS_PER_STEP = 200_000
"""A backlog is judged in pieces, so that what ran away inside it is seen."""


class OverrunWorker:
    """Follows the sink, and judges."""

    name = "overrun"

    def __init__(
        self,
        reader: SeriesReader,
        pool: ConnectionPool,
        clock: Clock,
        ids: IdSource,
        signals: SignalSink | None = None,
        new_watch: Callable[[IdSource, Iterable[Overrun]], Watch] | None = None,
        rates: Callable[[], Mapping[SeriesKey, float]] = dict,
    ) -> None:
        """`rates` are what budgets allow a minute, USD/9."""
        self._reader = reader
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._signals = signals or Unheard()
        self._mitigations = Mitigations(pool, clock, ids, self._signals)
        self._store = OverrunStore()
        self._new_watch = new_watch or (lambda ids, opened: Watch(ids, open_overruns=opened))
        self._rates = rates
        self._watch: Watch | None = None
        self._taken: Offsets = {}

    def recover(self) -> None:
        """Forget the series; the next step builds them again."""
        self._watch = None

    def step(self) -> bool:
        """Take in what landed and judge it; False when nothing landed."""
        self._mitigations.expire()
        watch = self._watch or self._rebuild()
        watch.budget_rates = dict(self._rates())
        landed = self._reader.landed()
        ends = {
            partition: min(end, self._taken.get(partition, 0) + OFFSETS_PER_STEP)
            for partition, end in landed.items()
        }
        is_new = any(end > self._taken.get(one, 0) for one, end in ends.items())
        changes = self._reader.changes(self._taken, ends) if is_new else []
        changed = watch.take(changes)
        now = self._clock.now()
        newest = max((change.minute for change in changes), default=0)
        at = min(now, (newest + 1) * MINUTE - 1) if changes else now
        at = max(watch.book.at, at)
        self._answer(watch, at, changed)
        self._watch, self._taken = watch, ends
        return is_new and ends != landed

    def _rebuild(self) -> Watch:
        with transaction(self._pool) as connection:
            watch = self._new_watch(self._ids, self._store.open_overruns(connection))
        now = self._clock.now()
        since = now // HOUR * HOUR - 6 * HOUR
        ends = self._reader.landed()
        watch.book.move(now - 6 * HOUR)
        watch.book.take_hours(self._reader.hours(since - HOURS_KEPT * HOUR, since))
        watch.take(self._reader.recent(since, ends) if ends else [])
        self._taken = ends
        return watch

    def _answer(self, watch: Watch, at: int, changed: set[SeriesKey]) -> None:
        with transaction(self._pool) as connection:
            watch.launches = self._store.launches(connection, "", at - 6 * HOUR)
            said = watch.judge(at, changed | {one.key for one in watch.open_overruns()})
            policies = self._store.policies(connection, "") if watch.open_overruns() else []
            self._write(connection, said, policies, at)
            for overrun in watch.open_overruns():
                self._climb(connection, overrun, policies, at)

    def _write(
        self, connection: psycopg.Connection[Any], said: Said, policies: list[Policy], at: int
    ) -> None:
        for overrun in said.opened:
            self._store.open_overrun(connection, overrun)
        for overrun in (*said.lasting, *said.closed):
            self._store.save_overrun(connection, overrun)
        for overrun in (*said.opened, *said.lasting):
            signal = signal_of(overrun, policy_for(overrun, policies), at)
            self._signals.raise_signal(connection, signal)
        for overrun in said.closed:
            self._signals.clear(connection, overrun.signal_id, at)

    def _climb(
        self,
        connection: psycopg.Connection[Any],
        overrun: Overrun,
        policies: list[Policy],
        at: int,
    ) -> None:
        taken = self._store.of_overrun(connection, overrun.overrun_id)
        rung = plan_step(overrun, policy_for(overrun, policies), taken, at)
        if rung is None:
            return
        scope = {} if overrun.dimension == "tenant" else {overrun.dimension: overrun.value}
        self._mitigations.apply_in(
            connection,
            overrun.tenant_id,
            scope,
            rung,
            f"{overrun.kind}: {overrun.detail}"[:REASON_LENGTH_MAX],
            "ladder",
            overrun_id=overrun.overrun_id,
        )


def signal_of(overrun: Overrun, policy: Policy | None, at: int) -> Signal:
    """Who, what, how much, since when, what next and how to stop it."""
    is_storm = overrun.kind in (Kind.ERROR_STORM, Kind.RETRY_STORM)
    how_much = (
        f"{overrun.observed_units} instead of {overrun.expected_units} usual"
        if is_storm
        else f"{format_amount(overrun.observed_units, USD)} USD instead of "
        f"{format_amount(overrun.expected_units, USD)} usual: "
        f"{format_amount(overrun.excess_units, USD)} USD too much so far"
    )
    scope = (
        "{}" if overrun.dimension == "tenant" else f'{{"{overrun.dimension}": "{overrun.value}"}}'
    )
    return Signal(
        signal_id=overrun.signal_id,
        tenant_id=overrun.tenant_id,
        kind=overrun.kind,
        severity=overrun.severity,
        who=f"{overrun.dimension}={overrun.value}",
        what=overrun.detail,
        how_much=how_much,
        since=overrun.since,
        next_step=next_step(overrun, policy, at),
        how_to_stop=f'POST /v1/mitigations {{"scope": {scope}, "step": "block", ...}}; '
        f"what drove it: GET /v1/overruns/{overrun.overrun_id}; "
        "expected? POST /v1/planned-launches",
        at=at,
    )
