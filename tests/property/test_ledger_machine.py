"""The ledger against the reference, on real PostgreSQL: any requests, in any groups.

Hypothesis chooses requests of every kind and how they are grouped, and shrinks what fails.
After every step every figure agrees with the reference and every invariant holds.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from psycopg_pool import ConnectionPool

from tallystick.clock import SECOND, FixedClock
from tallystick.errors import TallystickError
from tallystick.ids import Uuid7Source
from tallystick.ledger import (
    CaptureRequest,
    ChargeRequest,
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    LeaseRequest,
    Ledger,
    LimitPart,
    Outcome,
    RefundRequest,
    ReleaseRequest,
    ReportRequest,
    Request,
    ReturnRequest,
    RunTarget,
    StartRequest,
)
from tallystick.ledger.intake import prepare
from tallystick.plumbing.postgres import open_pool
from tests.simulation.auditor import Auditor
from tests.simulation.reference import Reference
from tests.simulation.workload import RUNS

START = 1_790_000_000_000_000
_serial = count()
amounts = st.integers(1, 30)
which = st.integers(0, 9)
runs = st.sampled_from(["", *RUNS])
parts = st.integers(-5, 15)


class Machine(RuleBasedStateMachine):
    """Each rule adds a request to a group; `send` applies it and compares."""

    pool: ConnectionPool

    @initialize(
        limit=st.sampled_from([0, 15, None]),
        policy=st.sampled_from(["cap", "overage", "reject"]),
        unknown=st.sampled_from(["capture", "release"]),
    )
    def open(self, limit: int | None, policy: str, unknown: str) -> None:
        self.name = f"m{next(_serial)}"
        self.clock = FixedClock(START)
        self.ledger = Ledger(self.pool, self.clock, Uuid7Source(self.clock))
        self.ledger.put_account(
            self.name,
            tenant_id=f"t-{self.name}",
            overage_limit_units=limit,
            capture_policy=policy,
            unknown_policy=unknown,
        )
        self.limit = f"usd:{self.name}"
        self.ledger.put_limit(self.limit, asset="USD/9", capacity=40)
        reference = Reference(limit, policy, unknown)
        reference.window(self.limit, "USD/9", 40)
        self.soft = f"soft:{self.name}"
        self.ledger.put_limit(self.soft, asset="USD/9", capacity=10, kind="soft")
        reference.window(self.soft, "USD/9", 10, "soft")
        self.auditor = Auditor(reference, self.name, f"t-{self.name}")
        self.group: list[Request] = []
        self.names: dict[str, list[str]] = {"hold": [], "lease": [], "charge": []}
        self.keys = 0

    def add(self, kind: type[Any], *values: Any, **more: Any) -> None:
        self.keys += 1
        request = kind(*values, idempotency_key=f"k{self.keys}", **more)
        self.auditor.requests[prepare(request).key_hash or ""] = request
        self.group.append(request)

    def pick(self, kind: str, index: int) -> str:
        names = self.names[kind]
        return names[index % len(names)] if names else "0" * 32

    @rule(units=amounts, priority=st.integers(0, 2), seconds=st.none() | st.integers(1, 40))
    def grant(self, units: int, priority: int, seconds: int | None) -> None:
        until = None if seconds is None else self.clock.micros + seconds * SECOND
        self.add(GrantRequest, self.name, units, priority=priority, expires_at=until)

    @rule(units=amounts, run=runs, is_after=st.booleans(), part=parts)
    def charge(self, units: int, run: str, is_after: bool, part: int) -> None:
        limits = self.limits_of(part)
        self.add(ChargeRequest, self.name, units, run, "", is_after, limits)

    def limits_of(self, units: int) -> tuple[LimitPart, ...]:
        """Parts of both limits; below 0 of none."""
        return tuple(LimitPart(one, units) for one in (self.limit, self.soft) if units >= 0)

    @rule(units=amounts, run=runs, started=st.booleans(), part=parts)
    def hold(self, units: int, run: str, started: bool, part: int) -> None:
        limits = self.limits_of(part)
        self.add(HoldRequest, self.name, units, 20, run, started, limits)

    @rule(index=which, units=st.integers(0, 40), usd=parts)
    def capture(self, index: int, units: int, usd: int) -> None:
        actuals = (("USD/9", usd),) if usd >= 0 else ()
        self.add(CaptureRequest, self.pick("hold", index), units, actuals=actuals)

    @rule(index=which)
    def release(self, index: int) -> None:
        self.add(ReleaseRequest, self.pick("hold", index))

    @rule(index=which)
    def start(self, index: int) -> None:
        self.add(StartRequest, self.pick("hold", index))

    @rule(index=which, units=st.integers(0, 5), seconds=st.sampled_from([5, 60]))
    def extend(self, index: int, units: int, seconds: int) -> None:
        kind = "hold" if index % 2 else "lease"
        self.add(ExtendRequest, self.pick(kind, index // 2), seconds, units, 1)

    @rule(units=amounts)
    def lease(self, units: int) -> None:
        self.add(LeaseRequest, self.name, units, 20)

    @rule(index=which, used=st.integers(0, 40), epoch=st.sampled_from([1, 1, 2]))
    def report(self, index: int, used: int, epoch: int) -> None:
        self.add(ReportRequest, self.pick("lease", index), used, epoch)

    @rule(index=which, used=st.integers(0, 40))
    def give_back(self, index: int, used: int) -> None:
        self.add(ReturnRequest, self.pick("lease", index), used, 1)

    @rule(index=which, units=st.none() | st.integers(1, 9), run=runs)
    def refund(self, index: int, units: int | None, run: str) -> None:
        if run:
            self.add(RefundRequest, tenant_id=f"t-{self.name}", run_id=run, units=units)
        else:
            self.add(RefundRequest, charge_id=self.pick("charge", index), units=units)

    @rule()
    def send(self) -> None:
        """The group, and then the same group again: every answer is the same."""
        answers = self.ledger.apply_batch(self.group)
        again = self.ledger.apply_batch(self.group)
        for request, answer, repeated in zip(self.group, answers, again, strict=True):
            if isinstance(answer, TallystickError):
                assert answer.http_status < 500
                continue
            assert answer == repeated, "INV-04"
            self.learn(request, answer)
        self.group = []

    def learn(self, request: Request, outcome: Outcome) -> None:
        self.auditor.heard(request, outcome)
        if outcome.status == "posted":
            if outcome.kind in ("hold", "lease"):
                self.names[outcome.kind].append(outcome.hold_id)
            elif outcome.kind in ("charge", "capture", "report", "return") and outcome.moved:
                self.names["charge"].append(outcome.operation_id)

    @rule(run=st.sampled_from(RUNS), units=st.integers(0, 40))
    def converge(self, run: str, units: int) -> None:
        self.send()
        self.replay()
        target = RunTarget(f"t-{self.name}", run, units)
        self.ledger.converge_run_charges([target])
        assert self.ledger.converge_run_charges([target])[0].operation_id is None
        self.replay({run: target})

    @rule(seconds=st.sampled_from([1, 10, 30, 4000]))
    def wait(self, seconds: int) -> None:
        self.send()
        self.clock.micros += seconds * SECOND

    @rule()
    def end_what_is_due(self) -> None:
        self.send()
        self.ledger.settle_due()

    def replay(self, converged: dict[str, RunTarget] | None = None) -> None:
        with self.pool.connection() as connection:
            self.auditor.replay(connection, converged)

    @invariant()
    def agrees(self) -> None:
        if hasattr(self, "name"):
            self.replay()
            self.auditor.balances(self.ledger, self.clock.micros)

    def teardown(self) -> None:
        if hasattr(self, "name"):
            self.send()
            self.agrees()
            assert self.ledger.verify() == []


def test_the_ledger_agrees_with_the_reference(postgres_url: str) -> None:
    pool = open_pool(postgres_url, connections_max=2)

    class Bound(Machine):
        pass

    Bound.pool = pool
    try:
        case = Bound.TestCase
        case.settings = settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        case().runTest()
    finally:
        pool.close()


pytestmark = pytest.mark.slow
