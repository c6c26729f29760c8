"""Mitigations, policies and planned launches: the acts of people and of the ladder.

Every act is one transaction: the row, its entry in the audit trail and, for a step in force, a
signal. Ids, time and the sink of signals are passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from tallystick.bounds import ID_LENGTH_MAX, REASON_LENGTH_MAX
from tallystick.clock import SECOND, Clock, format_time
from tallystick.enforcement.alerts import Signal, SignalSink
from tallystick.enforcement.overrun.model import (
    DIMENSIONS,
    SCOPE_DIMENSIONS,
    TTL_MAX,
    Mitigation,
    MitigationEvent,
    Overrun,
    PlannedLaunch,
    Policy,
    Rung,
    Step,
)
from tallystick.enforcement.overrun.store import OverrunStore
from tallystick.errors import Conflict, Forbidden, InvalidInput, NotFound
from tallystick.ids import IdSource
from tallystick.plumbing.postgres import transaction

_FACTOR_MAX = Decimal(1000)


class Unheard:
    """A sink for who wants none."""

    def raise_signal(self, connection: psycopg.Connection[Any], signal: Signal) -> None:
        """Nobody is told."""

    def clear(self, connection: psycopg.Connection[Any], signal_id: str, at: int) -> None:
        """Nobody is told."""


class Mitigations:
    """Puts steps of the ladder in force and takes them back."""

    def __init__(
        self, pool: ConnectionPool, clock: Clock, ids: IdSource, signals: SignalSink | None = None
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._signals = signals or Unheard()
        self._store = OverrunStore()

    def apply(
        self,
        tenant_id: str,
        scope: Mapping[str, str],
        rung: Rung,
        reason: str,
        by: str,
        *,
        idempotency_key: str = "",
    ) -> Mitigation:
        """Put a step in force at once; the same key again returns what it made.

        Raises InvalidInput; Conflict when the key was used for something else.
        """
        check_scope(scope)
        check_rung(rung)
        check_reason(reason)
        with transaction(self._pool) as connection:
            made = self.apply_in(
                connection, tenant_id, scope, rung, reason, by, idempotency_key=idempotency_key
            )
        if (made.scope, made.step, made.reason) != (dict(scope), rung.step, reason):
            raise Conflict("this idempotency key made another mitigation")
        return made

    def apply_in(
        self,
        connection: psycopg.Connection[Any],
        tenant_id: str,
        scope: Mapping[str, str],
        rung: Rung,
        reason: str,
        by: str,
        *,
        overrun_id: str = "",
        idempotency_key: str = "",
    ) -> Mitigation:
        """The same, in the caller's transaction."""
        now = self._clock.now()
        mitigation = Mitigation(
            mitigation_id=self._ids.next_id(),
            tenant_id=tenant_id,
            scope=dict(scope),
            step=rung.step,
            per_minute=rung.per_minute if rung.step == Step.THROTTLE else 0,
            downgrade_to=rung.downgrade_to,
            reason=reason,
            overrun_id=overrun_id,
            idempotency_key=idempotency_key,
            starts_at=now,
            expires_at=now + rung.ttl_seconds * SECOND,
            created_by=by,
        )
        if not self._store.insert_mitigation(connection, mitigation):
            known = self._store.mitigation_of_key(connection, tenant_id, idempotency_key)
            return known or mitigation
        self._store.append_event(connection, mitigation, "applied", reason, now, by)
        self._signals.raise_signal(connection, signal_of(mitigation))
        return mitigation

    def undo(self, tenant_id: str, mitigation_id: str, reason: str, by: str) -> Mitigation:
        """End a step now; one that has ended stays as it is. Raises NotFound, Forbidden."""
        now = self._clock.now()
        with transaction(self._pool) as connection:
            known = self._store.mitigation(connection, "", mitigation_id)
            if known is None or (tenant_id and known.tenant_id not in (tenant_id, "")):
                raise NotFound("there is no such mitigation")
            if tenant_id and not known.tenant_id:
                raise Forbidden("the operator made this for every tenant; ask the operator")
            if self._store.end_mitigation(connection, mitigation_id, now):
                self._store.append_event(connection, known, "undone", reason, now, by)
                self._signals.clear(connection, signal_id_of(known), now)
            ended = self._store.mitigation(connection, tenant_id, mitigation_id)
        assert ended is not None
        return ended

    def expire(self) -> int:
        """End what is over and say so; return how many."""
        now = self._clock.now()
        with transaction(self._pool) as connection:
            ended = self._store.expire_due(connection, now)
            for one in ended:
                self._store.append_event(
                    connection, one, "expired", "its time is over", one.expires_at, "system"
                )
                self._signals.clear(connection, signal_id_of(one), now)
        return len(ended)

    def get(self, tenant_id: str, mitigation_id: str) -> tuple[Mitigation, list[MitigationEvent]]:
        """One mitigation with its audit trail; NotFound."""
        with transaction(self._pool) as connection:
            found = self._store.mitigation(connection, tenant_id, mitigation_id)
            if found is None:
                raise NotFound("there is no such mitigation")
            return found, self._store.events(connection, mitigation_id)

    def newest(self, tenant_id: str, *, is_active: bool, limit: int) -> list[Mitigation]:
        """The newest mitigations."""
        now = self._clock.now()
        with transaction(self._pool) as connection:
            return self._store.mitigations(
                connection, tenant_id, is_active=is_active, now=now, limit=limit
            )

    def put_policy(self, policy: Policy, by: str) -> Policy:
        """Set which steps follow by themselves on overruns of a scope."""
        if policy.dimension not in ("", *DIMENSIONS) or (policy.value and not policy.dimension):
            raise InvalidInput(f"dimension is one of {', '.join(DIMENSIONS)}", field="dimension")
        for rung in policy.steps:
            check_rung(rung, is_policy=True)
        with transaction(self._pool) as connection:
            self._store.put_policy(connection, policy, self._clock.now(), by)
        return policy

    def policies(self, tenant_id: str) -> list[Policy]:
        """Policies of a tenant."""
        with transaction(self._pool) as connection:
            return self._store.policies(connection, tenant_id)


class Launches:
    """Planned launches on file, and overruns as they were seen."""

    def __init__(self, pool: ConnectionPool, clock: Clock, ids: IdSource) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._store = OverrunStore()

    def plan(
        self,
        tenant_id: str,
        scope: Mapping[str, str],
        range_: tuple[int, int],
        expected: tuple[Decimal, int],
        reason: str,
        by: str,
    ) -> PlannedLaunch:
        """Put a launch on file: factor and USD/9 expected on top in [from, to)."""
        check_reason(reason)
        (from_at, to_at), (factor, extra_units) = range_, expected
        if len(scope) > 1 or not set(scope) <= set(DIMENSIONS):
            raise InvalidInput(f"scope has one of {', '.join(DIMENSIONS)}", field="scope")
        check_scope(scope)
        if from_at >= to_at:
            raise InvalidInput("from must be before to", code="empty_range", field="from")
        if not 1 <= factor <= _FACTOR_MAX or extra_units < 0 or (factor == 1 and not extra_units):
            raise InvalidInput(
                f"expected_factor must be 1 to {_FACTOR_MAX}, or expected_amount_usd above 0",
                field="expected_factor",
            )
        dimension, value = next(iter(scope.items()), ("tenant", tenant_id))
        launch = PlannedLaunch(
            launch_id=self._ids.next_id(),
            tenant_id=tenant_id,
            dimension=dimension,
            value=value,
            from_at=from_at,
            to_at=to_at,
            factor=factor,
            extra_units=extra_units,
            reason=reason,
            created_at=self._clock.now(),
            created_by=by,
        )
        with transaction(self._pool) as connection:
            self._store.insert_launch(connection, launch)
        return launch

    def withdraw(self, tenant_id: str, launch_id: str) -> PlannedLaunch:
        """Take a launch back; NotFound."""
        with transaction(self._pool) as connection:
            found = self._store.withdraw_launch(connection, tenant_id, launch_id, self._clock.now())
        if found is None:
            raise NotFound("there is no such planned launch")
        return found

    def on_file(self, tenant_id: str) -> list[PlannedLaunch]:
        """Launches that are not over."""
        with transaction(self._pool) as connection:
            return self._store.launches(connection, tenant_id, self._clock.now())

    def overruns(self, tenant_id: str, *, is_open: bool, limit: int) -> list[Overrun]:
        """The newest overruns."""
        with transaction(self._pool) as connection:
            return self._store.overruns(connection, tenant_id, is_open=is_open, limit=limit)

    def overrun(self, tenant_id: str, overrun_id: str) -> tuple[Overrun, list[Mitigation]]:
        """One overrun and what was done about it; NotFound."""
        with transaction(self._pool) as connection:
            found = self._store.overrun(connection, tenant_id, overrun_id)
            if found is None:
                raise NotFound("there is no such overrun")
            return found, self._store.of_overrun(connection, overrun_id)


def signal_id_of(mitigation: Mitigation) -> str:
    """The identity of the signal that a step is in force."""
    return f"mitigation:{mitigation.mitigation_id}"


def signal_of(mitigation: Mitigation) -> Signal:
    """The signal that a step is in force."""
    is_stern = mitigation.step in (Step.BLOCK, Step.KILL)
    who = ", ".join(f"{name}={value}" for name, value in sorted(mitigation.scope.items()))
    return Signal(
        signal_id=signal_id_of(mitigation),
        tenant_id=mitigation.tenant_id,
        kind="mitigation",
        severity="critical" if is_stern else "warning",
        who=who or "all work",
        what=f"{mitigation.step} is in force: {mitigation.reason}",
        how_much=f"{mitigation.per_minute} a minute" if mitigation.per_minute else "",
        since=mitigation.starts_at,
        next_step=f"it ends by itself at {format_time(mitigation.expires_at)}",
        how_to_stop=f"DELETE /v1/mitigations/{mitigation.mitigation_id}",
        at=mitigation.starts_at,
    )


def check_scope(scope: Mapping[str, str]) -> None:
    """Raise InvalidInput unless every dimension is known and every value fits."""
    unknown = sorted(set(scope) - SCOPE_DIMENSIONS)
    if unknown:
        raise InvalidInput(
            f"unknown dimension {unknown[0][:40]!r}; known: {', '.join(sorted(SCOPE_DIMENSIONS))}",
            code="unknown_dimension",
            field="scope",
        )
    if any(not 0 < len(value) <= ID_LENGTH_MAX or "\0" in value for value in scope.values()):
        raise InvalidInput(f"a value of scope has 1 to {ID_LENGTH_MAX} characters", field="scope")


def check_rung(rung: Rung, *, is_policy: bool = False) -> None:
    """Raise InvalidInput unless a step can be put in force."""
    if rung.step == Step.ALERT and not is_policy:
        raise InvalidInput("an alert is no mitigation; alerts are raised anyway", field="step")
    if not 0 < rung.ttl_seconds * SECOND <= TTL_MAX:
        raise InvalidInput("ttl_seconds is 1 second to 30 days", field="ttl_seconds")
    if rung.after_seconds < 0:
        raise InvalidInput("after_seconds cannot be negative", field="after_seconds")
    if rung.step == Step.THROTTLE and not 0 < rung.per_minute <= 1_000_000:
        raise InvalidInput("per_minute is 1 to 1000000", field="per_minute")
    if rung.step == Step.DOWNGRADE and not 0 < len(rung.downgrade_to) <= ID_LENGTH_MAX:
        raise InvalidInput("a downgrade names the model to call instead", field="downgrade_to")


def check_reason(reason: str) -> None:
    """Raise InvalidInput unless a reason is given, as a sentence."""
    if not 0 < len(reason.strip()) <= REASON_LENGTH_MAX or "\0" in reason:
        raise InvalidInput(f"a reason has 1 to {REASON_LENGTH_MAX} characters", field="reason")
