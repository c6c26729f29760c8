"""Corners of the ledger where money was once wrong, or could be: each a short story."""

from __future__ import annotations

import threading
from itertools import count

import psycopg
import pytest

from tallystick.clock import HOUR, SECOND, FixedClock
from tallystick.errors import Conflict, InvalidInput, NotFound, TallystickError
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
    RunTarget,
)

_serial = count()


def key() -> str:
    return f"k{next(_serial)}"


def opened(ledger: Ledger, *lots: int, tenant: str = "", limit: int | None = 0, **more: str) -> str:
    name = f"c{next(_serial)}"
    ledger.put_account(name, tenant_id=tenant or f"t-{name}", overage_limit_units=limit, **more)
    for units in lots:
        ledger.apply(GrantRequest(name, units, idempotency_key=key()))
    return name


def held(ledger: Ledger, account: str, units: int, **more: object) -> str:
    outcome = ledger.apply(HoldRequest(account, units, idempotency_key=key(), **more))  # type: ignore[arg-type]
    assert outcome.status == "posted"
    return outcome.hold_id


def capture(ledger: Ledger, hold_id: str, units: int) -> Outcome:
    return ledger.apply(CaptureRequest(hold_id, units, idempotency_key=key()))


def past_policy(ledger: Ledger, clock: FixedClock) -> None:
    """Let holds of 5 seconds run out, become unknown and be settled by policy."""
    for wait in (6 * SECOND, 2 * HOUR):
        clock.micros += wait
        ledger.settle_due()


def code_of(ledger: Ledger, request: Request) -> str:
    with pytest.raises(TallystickError) as caught:
        ledger.apply(request)
    return caught.value.code


def test_what_a_late_settle_gave_back_is_no_charge(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 10)
    hold_id = held(ledger, account, 10, ttl_seconds=5, has_started=True)
    past_policy(ledger, clock)
    settled = capture(ledger, hold_id, 4)
    refund = RefundRequest(charge_id=settled.operation_id, idempotency_key=key())
    assert code_of(ledger, refund) == "unknown_charge"
    assert ledger.balance(account).available == 6


@pytest.mark.parametrize(("actual", "available"), [(0, 10), (5, 8), (9, 4)])
def test_a_refund_by_hand_before_the_late_settle(
    ledger: Ledger, clock: FixedClock, actual: int, available: int
) -> None:
    """Policy took 10, support gave 3 back and that stays so, then the true cost comes."""
    account = opened(ledger, 10)
    hold_id = held(ledger, account, 10, ttl_seconds=5, has_started=True, run_id="r")
    past_policy(ledger, clock)
    refund = RefundRequest(tenant_id=f"t-{account}", run_id="r", units=3, idempotency_key=key())
    ledger.apply(refund)
    capture(ledger, hold_id, actual)
    assert ledger.balance(account).available == available


def test_facts_count_what_they_drew_in_the_limits(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 10)
    limit, money = f"credit:{account}", f"usd:{account}"
    ledger.put_limit(limit, asset="CREDIT/6", capacity=50)
    ledger.put_limit(money, asset="USD/9", capacity=50)
    parts = (LimitPart(limit, 10), LimitPart(money, 20))
    held(ledger, account, 10, ttl_seconds=5, has_started=True, run_id="r", limits=parts)
    clock.micros += 6 * SECOND
    ledger.settle_due()
    ledger.converge_run_charges([RunTarget(f"t-{account}", "r", 7)])
    found = {one.limit_id: (one.used, one.held) for one in ledger.load_limits([limit, money])}
    assert found == {limit: (7, 0), money: (20, 0)}


def test_a_late_settle_counts_in_the_limits(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 100)
    limit = f"credit:{account}"
    ledger.put_limit(limit, asset="CREDIT/6", capacity=10)
    hold_id = held(ledger, account, 10, ttl_seconds=5, limits=(LimitPart(limit, 10),))
    clock.micros += 6 * SECOND
    ledger.settle_due()
    capture(ledger, hold_id, 8)
    assert ledger.load_limits([limit])[0].used == 8


def test_an_extension_takes_its_part_of_the_limits(ledger: Ledger) -> None:
    account = opened(ledger, 1000)
    limit = f"credit:{account}"
    ledger.put_limit(limit, asset="CREDIT/6", capacity=15)
    hold_id = held(ledger, account, 10, limits=(LimitPart(limit, 10),))
    refused = ledger.apply(ExtendRequest(hold_id, 0, 6, idempotency_key=key()))
    assert (refused.status, refused.decided_by) == ("declined", f"limit:{limit}")
    assert ledger.apply(ExtendRequest(hold_id, 0, 5, idempotency_key=key())).status == "posted"
    capture(ledger, hold_id, 15)
    assert ledger.load_limits([limit])[0].overrun == 0


def test_a_whole_batch_with_one_key_twice(ledger: Ledger) -> None:
    account = opened(ledger, 10)
    twice = HoldRequest(account, 6, idempotency_key="x")
    more = HoldRequest(account, 6, idempotency_key="y")
    answers = ledger.apply_batch([twice, twice, more], all_or_nothing=True)
    assert [one.status for one in answers if isinstance(one, Outcome)] == ["declined"] * 3
    assert answers[0] == answers[1]


def test_a_whole_batch_with_an_item_declined_before(ledger: Ledger) -> None:
    account = opened(ledger, 10)
    known = HoldRequest(account, 60, idempotency_key="x")
    assert ledger.apply(known).status == "declined"
    fresh = HoldRequest(account, 6, idempotency_key="y")
    answers = ledger.apply_batch([known, fresh], all_or_nothing=True)
    assert [one.code for one in answers] == ["credit_exhausted", "batch_declined"]
    assert ledger.balance(account).held == 0


def test_a_declined_settle_does_not_block_the_real_one(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 20, capture_policy="reject")
    expired = held(ledger, account, 5, ttl_seconds=5)
    clock.micros += 5 * SECOND
    ledger.settle_due()
    is_open = held(ledger, account, 5)
    batch = [
        CaptureRequest(expired, 4, idempotency_key=key()),
        CaptureRequest(is_open, 6, idempotency_key=key()),
    ]
    answers = ledger.apply_batch(batch, all_or_nothing=True)
    assert [one.code for one in answers] == ["batch_declined", "capture_above_hold"]
    assert capture(ledger, expired, 4).moved == 4


def test_credit_given_back_to_an_expired_lot_is_not_spent(
    ledger: Ledger, clock: FixedClock
) -> None:
    """Refund and charge in one group: the refund goes to a lot whose time is over."""
    account = opened(ledger)
    until = clock.micros + 60 * SECOND
    ledger.apply(GrantRequest(account, 10, expires_at=until, idempotency_key=key()))
    charge = ledger.apply(ChargeRequest(account, 4, idempotency_key=key()))
    held(ledger, account, 3)
    clock.micros += 61 * SECOND
    refund = RefundRequest(charge_id=charge.operation_id, idempotency_key=key())
    answers = ledger.apply_batch([refund, ChargeRequest(account, 4, idempotency_key=key())])
    assert [one.status for one in answers if isinstance(one, Outcome)] == ["posted", "declined"]
    ledger.apply(GrantRequest(account, 1, idempotency_key=key()))


def test_a_limit_is_not_lowered_under_what_is_held_without_credit(
    ledger: Ledger, clock: FixedClock
) -> None:
    account = opened(ledger, limit=10)
    until = clock.micros + 60 * SECOND
    ledger.apply(GrantRequest(account, 10, expires_at=until, idempotency_key=key()))
    first = held(ledger, account, 10)
    held(ledger, account, 5, ttl_seconds=3000)
    ledger.apply(ReleaseRequest(first, idempotency_key=key()))
    with pytest.raises(Conflict, match="below"):
        ledger.put_account(account, tenant_id=f"t-{account}", overage_limit_units=0)
    clock.micros += 61 * SECOND
    assert ledger.expire_lots() >= 1
    assert ledger.balance(account).available == -5


def test_a_run_is_held_and_charged_on_one_account(ledger: Ledger, clock: FixedClock) -> None:
    tenant = f"tenant{next(_serial)}"
    first, second = opened(ledger, 100, tenant=tenant), opened(ledger, 100, tenant=tenant)
    hold_id = held(ledger, second, 10, run_id="R", ttl_seconds=5)
    assert code_of(ledger, HoldRequest(first, 1, run_id="R", idempotency_key=key())) == (
        "run_on_other_account"
    )
    clock.micros += 6 * SECOND
    ledger.settle_due()
    ledger.converge_run_charges([RunTarget(tenant, "R", 8)])
    capture(ledger, hold_id, 8)
    ledger.converge_run_charges([RunTarget(tenant, "R", 8), RunTarget(tenant, "S", 1)])
    assert (ledger.balance(first).available, ledger.balance(second).available) == (99, 92)


@pytest.mark.parametrize(
    "bad",
    [
        HoldRequest("x\0y", 1, idempotency_key="k"),
        RefundRequest(tenant_id="t", run_id="x\0", idempotency_key="k"),
        ReportRequest("0" * 32, 1, 2**70, idempotency_key="k"),
        HoldRequest("nobody", 1, limits=(LimitPart("a\0", 1),), idempotency_key="k"),
        GrantRequest("nobody", 1, expires_at=2**64 - 1, idempotency_key="k"),
    ],
)
def test_what_no_store_could_take_is_refused_alone(ledger: Ledger, bad: Request) -> None:
    account = opened(ledger, 10)
    answers = ledger.apply_batch([HoldRequest(account, 1, idempotency_key="k"), bad])
    assert isinstance(answers[0], Outcome)
    assert isinstance(answers[1], InvalidInput | NotFound)


def test_totals_stay_within_64_bits(ledger: Ledger) -> None:
    account = opened(ledger)
    grants = [GrantRequest(account, 10**16, idempotency_key=key()) for _ in range(470)]
    codes = {one.code for one in ledger.apply_batch(grants)}
    assert codes == {"", "amount_too_large"}


def test_two_changes_of_one_account_at_once(ledger: Ledger) -> None:
    account = opened(ledger, 10)
    limits = [5, 0, 7, 3, 0, 9]
    threads = [
        threading.Thread(
            target=ledger.put_account,
            args=(account,),
            kwargs={"tenant_id": f"t-{account}", "overage_limit_units": limit},
        )
        for limit in limits
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(("policy", "available"), [("release", 5), ("capture", 5)])
def test_the_last_word_on_a_lease(
    ledger: Ledger, clock: FixedClock, policy: str, available: int
) -> None:
    """Policy settled the lease; the worker comes back and says what it used."""
    account = opened(ledger, 10, unknown_policy=policy)
    lease = ledger.apply(LeaseRequest(account, 8, ttl_seconds=5, idempotency_key=key()))
    ledger.apply(ReportRequest(lease.hold_id, 2, 1, idempotency_key=key()))
    past_policy(ledger, clock)
    ledger.apply(ReportRequest(lease.hold_id, 5, 1, idempotency_key=key()))
    assert ledger.balance(account).available == available


def test_a_lease_that_ran_out_is_not_revived(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, 10)
    lease = ledger.apply(LeaseRequest(account, 8, ttl_seconds=5, idempotency_key=key()))
    clock.micros += 6 * SECOND
    assert code_of(ledger, ExtendRequest(lease.hold_id, 60, 0, 1, idempotency_key=key())) == (
        "lease_fenced"
    )
    ledger.settle_due()
    for epoch in (1, 2):
        request = ExtendRequest(lease.hold_id, 60, 0, epoch, idempotency_key=key())
        assert code_of(ledger, request) == "lease_fenced"
    ledger.apply(ReportRequest(lease.hold_id, 5, 1, idempotency_key=key()))
    assert ledger.balance(account).leased == 3


def test_a_run_charged_elsewhere_while_a_convergence_waits(
    ledger: Ledger, postgres_url: str
) -> None:
    tenant = f"tenant{next(_serial)}"
    first, second = opened(ledger, 10, tenant=tenant), opened(ledger, 10, tenant=tenant)
    with psycopg.connect(postgres_url) as other:
        lock = "SELECT 1 FROM ledger.balance WHERE account_id = %s FOR UPDATE"
        other.execute(lock.encode(), (first,))
        waiting = threading.Thread(
            target=ledger.converge_run_charges, args=([RunTarget(tenant, "R", 5)],)
        )
        waiting.start()
        ledger.apply(ChargeRequest(second, 4, run_id="R", idempotency_key=key()))
        other.commit()
    waiting.join()
    assert (ledger.balance(first).available, ledger.balance(second).available) == (10, 5)
