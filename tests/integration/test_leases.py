"""Leases through the client of the SDK: constant credit, fencing, a server that is away."""

from __future__ import annotations

import threading
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.clock import HOUR, SECOND, FixedClock
from tallystick.errors import StoreUnavailable
from tallystick.ledger import (
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    LeaseRequest,
    Ledger,
    ReleaseRequest,
    ReportRequest,
    ReturnRequest,
)
from tallystick.sdk import LeasedCredit, LeaseTerms

_serial = count()


class DirectLeases:
    """The server's side without HTTP; `is_away` makes it unreachable."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.is_away = False

    def _reach(self) -> None:
        if self.is_away:
            raise StoreUnavailable("away")

    def open(self, account_id: str, units: int, ttl_seconds: int, key: str) -> LeaseTerms | None:
        self._reach()
        outcome = self.ledger.apply(
            LeaseRequest(account_id, units, ttl_seconds, idempotency_key=key)
        )
        if outcome.status == "declined":
            return None
        return LeaseTerms(outcome.hold_id, outcome.epoch, outcome.units)

    def report(self, lease: LeaseTerms, used_units: int, key: str) -> None:
        self._reach()
        self.ledger.apply(
            ReportRequest(lease.lease_id, used_units, lease.epoch, idempotency_key=key)
        )

    def extend(self, lease: LeaseTerms, units: int, ttl_seconds: int, key: str) -> bool:
        self._reach()
        request = ExtendRequest(
            lease.lease_id, ttl_seconds, units, lease.epoch, idempotency_key=key
        )
        return self.ledger.apply(request).status == "posted"

    def give_back(self, lease: LeaseTerms, used_units: int, key: str) -> None:
        self._reach()
        self.ledger.apply(
            ReturnRequest(lease.lease_id, used_units, lease.epoch, idempotency_key=key)
        )


def opened(ledger: Ledger, units: int) -> str:
    name = f"l{next(_serial)}"
    ledger.put_account(name, tenant_id=f"t-{name}")
    ledger.apply(GrantRequest(name, units, idempotency_key="g"))
    return name


def client(ledger: Ledger, clock: FixedClock, account: str, block: int) -> LeasedCredit:
    return LeasedCredit(
        DirectLeases(ledger),
        account,
        block_units=block,
        now=lambda: clock.micros / SECOND,
        has_thread=False,
    )


def test_a_worker_spends_its_block_and_returns_the_rest(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 100)
    credit = client(ledger, clock, account, 40)
    assert ledger.balance(account).leased == 40
    permit = credit.authorize(30)
    assert permit is not None
    assert credit.authorize(11) is None
    credit.settle(permit, 25)
    assert credit.sync()
    balance = ledger.balance(account)
    assert (balance.captured, balance.leased, balance.available) == (25, 40, 35)
    credit.close()
    balance = ledger.balance(account)
    assert (balance.captured, balance.leased, balance.available) == (25, 0, 75)


def test_a_server_that_is_away_fences_the_worker_in_time(ledger: Ledger, clock: FixedClock) -> None:
    """It goes on with what it has, then stops; what it used is charged when it comes back."""
    account = opened(ledger, 100)
    server = DirectLeases(ledger)
    credit = LeasedCredit(
        server, account, block_units=40, now=lambda: clock.micros / SECOND, has_thread=False
    )
    server.is_away = True
    clock.micros += 59 * SECOND
    assert not credit.sync()
    permit = credit.authorize(10)
    assert permit is not None
    clock.micros += 2 * SECOND
    assert credit.authorize(1) is None, "its time is over"
    ledger.settle_due()
    assert ledger.balance(account).leased == 40, "unknown, not free"
    server.is_away = False
    credit.settle(permit, 10)
    assert credit.sync(), "a new lease"
    assert credit.sync(), "and the last word on the old one"
    balance = ledger.balance(account)
    assert (balance.captured, balance.leased) == (10, 40)
    credit.close()
    assert ledger.balance(account).available == 90


def test_a_crashed_worker_is_never_free(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 100)
    credit = client(ledger, clock, account, 40)
    assert credit.authorize(10) is not None
    del credit
    for wait in (61 * SECOND, 2 * HOUR):
        clock.micros += wait
        ledger.settle_due()
    balance = ledger.balance(account)
    assert (balance.captured, balance.leased) == (40, 0)


def test_an_account_without_credit_lends_nothing(ledger: Ledger, clock: FixedClock) -> None:
    credit = client(ledger, clock, opened(ledger, 10), 40)
    assert credit.authorize(1) is None
    credit.close()


def test_many_threads_never_spend_more_than_the_block(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 1000)
    credit = client(ledger, clock, account, 500)
    spent: list[int] = []

    def work() -> None:
        for _ in range(200):
            permit = credit.authorize(1)
            if permit is not None:
                credit.settle(permit, 1)
                spent.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    credit.close()
    assert sum(spent) == 500
    assert ledger.balance(account).captured == 500


steps = st.lists(st.tuples(st.sampled_from("hrletx"), st.integers(1, 30)), max_size=20)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps)
def test_free_held_and_leased_sum_to_the_same(
    ledger: Ledger, clock: FixedClock, steps: list[tuple[str, int]]
) -> None:
    """Holding, leasing, extending, releasing and running out move credit, never make it."""
    account = opened(ledger, 100)
    holds: list[str] = []
    leases: list[str] = []
    for step, units in steps:
        key = f"k{next(_serial)}"
        if step == "h":
            outcome = ledger.apply(HoldRequest(account, units, idempotency_key=key))
            holds += [outcome.hold_id] if outcome.status == "posted" else []
        elif step == "l":
            outcome = ledger.apply(LeaseRequest(account, units, idempotency_key=key))
            leases += [outcome.hold_id] if outcome.status == "posted" else []
        elif step == "r" and holds:
            ledger.apply(ReleaseRequest(holds.pop(), idempotency_key=key))
        elif step == "e" and leases:
            ledger.apply(ExtendRequest(leases[-1], 60, units, 1, idempotency_key=key))
        elif step == "t" and leases:
            ledger.apply(ReturnRequest(leases.pop(), 0, 1, idempotency_key=key))
        balance = ledger.balance(account)
        assert balance.available + balance.held + balance.leased == 100
