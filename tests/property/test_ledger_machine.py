"""The ledger against a plain model that shares no rule with it, on real PostgreSQL."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tallystick.clock import SECOND, FixedClock
from tallystick.ids import Uuid7Source
from tallystick.ledger import ChargeRequest, GrantRequest, Ledger, RefundRequest, RunTarget
from tallystick.plumbing.postgres import open_pool

_serial = count()
amounts = st.integers(1, 50)


class Machine(RuleBasedStateMachine):
    """Each rule does the same to the ledger and to a few plain numbers."""

    ledger: Ledger
    clock: FixedClock

    @initialize(limit=st.sampled_from([0, 20]))
    def open(self, limit: int) -> None:
        self.name = f"m{next(_serial)}"
        self.limit = limit
        self.ledger.put_account(self.name, tenant_id=self.name, overage_limit_units=limit)
        self.lots: list[list[int]] = []  # [free, expires_at]
        self.debt = 0
        self.granted = 0
        self.runs: dict[str, list[int]] = {}  # run -> [charged, shortfall]
        self.keys = 0

    def _free(self) -> int:
        return sum(free for free, until in self.lots if until > self.clock.micros) - self.debt

    def _take(self, units: int) -> None:
        for lot in sorted(self.lots, key=lambda lot: lot[1]):
            if lot[1] > self.clock.micros:
                part = min(units, lot[0])
                lot[0] -= part
                units -= part
        self.debt += units

    def _key(self) -> str:
        self.keys += 1
        return f"k{self.keys}"

    @rule(units=amounts, seconds=st.none() | st.integers(1, 5))
    def grant(self, units: int, seconds: int | None) -> None:
        until = None if seconds is None else self.clock.micros + seconds * SECOND
        request = GrantRequest(self.name, units, idempotency_key=self._key(), expires_at=until)
        assert self.ledger.apply(request) == self.ledger.apply(request)
        repaid = min(self.debt, units)
        self.debt -= repaid
        self.granted += units
        self.lots.append([units - repaid, until or 2**62])

    @rule(units=amounts)
    def charge(self, units: int) -> None:
        request = ChargeRequest(self.name, units, idempotency_key=self._key())
        outcome = self.ledger.apply(request)
        assert self.ledger.apply(request) == outcome
        fits = units <= self._free() + self.limit
        assert (outcome.status == "posted") == fits
        if fits:
            self._take(units)

    @rule(run=st.sampled_from(["a", "b"]), wanted=st.integers(0, 80))
    def converge(self, run: str, wanted: int) -> None:
        charged, shortfall = self.runs.get(run, [0, 0])
        rising = wanted - charged - shortfall
        if rising < 0 and charged and -rising > shortfall:
            return  # falling targets give back to lots: covered by the refund tests
        self.ledger.converge_run_charges([RunTarget(self.name, run, wanted)])
        again = self.ledger.converge_run_charges([RunTarget(self.name, run, wanted)])
        assert again[0].delta_units == 0
        if rising >= 0:
            fits = min(rising, max(self._free() + self.limit, 0))
            self._take(fits)
            self.runs[run] = [charged + fits, shortfall + rising - fits]
        else:
            self.runs[run] = [charged, shortfall + rising]

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.clock.micros += seconds * SECOND

    @rule(units=amounts)
    def charge_and_refund(self, units: int) -> None:
        before = self.ledger.balance(self.name).available
        outcome = self.ledger.apply(ChargeRequest(self.name, units, idempotency_key=self._key()))
        if outcome.status == "posted":
            self.ledger.apply(
                RefundRequest(idempotency_key=self._key(), charge_id=outcome.operation_id)
            )
        assert self.ledger.balance(self.name).available == before

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "name"):
            return
        balance = self.ledger.balance(self.name)
        assert balance.available == self._free()
        assert balance.granted == self.granted
        total = balance.available + balance.held + balance.leased + balance.captured
        assert balance.granted == total + balance.expired - balance.refunded  # INV-15
        for bucket in balance.buckets:
            parts = bucket.available + bucket.held + bucket.captured + bucket.expired
            assert bucket.granted == parts
        assert self.ledger.verify() == []


def test_the_ledger_agrees_with_a_plain_model(postgres_url: str) -> None:
    pool = open_pool(postgres_url, connections_max=4)
    clock = FixedClock(1_790_000_000_000_000)

    class Bound(Machine):
        pass

    Bound.ledger = Ledger(pool, clock, Uuid7Source(clock))
    Bound.clock = clock
    try:
        case = Bound.TestCase
        case.settings = settings(
            max_examples=40,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        case().runTest()
    finally:
        pool.close()


pytestmark = pytest.mark.slow
