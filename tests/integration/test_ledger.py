"""The ledger on real PostgreSQL: keys, concurrency, convergence, history that cannot change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tallystick.clock import SECOND, FixedClock
from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.ids import Uuid7Source
from tallystick.ledger import (
    ChargeRequest,
    GrantRequest,
    Ledger,
    RefundRequest,
    RunTarget,
)
from tallystick.plumbing.postgres import open_pool

NOW = 1_790_000_000_000_000


@pytest.fixture(scope="module")
def clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture(scope="module")
def ledger(postgres_url: str, clock: FixedClock):  # type: ignore[no-untyped-def]
    pool = open_pool(postgres_url, connections_max=8)
    yield Ledger(pool, clock, Uuid7Source(clock))
    pool.close()


def opened(ledger: Ledger, name: str, units: int = 100, limit: int | None = 0) -> str:
    ledger.put_account(name, tenant_id=f"tenant-{name}", overage_limit_units=limit)
    if units:
        ledger.apply(GrantRequest(name, units, idempotency_key="first"))
    return name


def test_the_same_key_answers_the_same_for_ever(ledger: Ledger) -> None:
    """INV-04, declines too."""
    account = opened(ledger, "keys")
    charge = ChargeRequest(account, 60, idempotency_key="c1")
    first = ledger.apply(charge)
    assert ledger.apply(charge) == first
    declined = ledger.apply(ChargeRequest(account, 60, idempotency_key="c2"))
    assert (declined.status, declined.code) == ("declined", "credit_exhausted")
    ledger.apply(GrantRequest(account, 1000, idempotency_key="more"))
    assert ledger.apply(ChargeRequest(account, 60, idempotency_key="c2")) == declined
    with pytest.raises(Conflict):
        ledger.apply(ChargeRequest(account, 61, idempotency_key="c1"))
    with pytest.raises(Conflict):
        ledger.apply(GrantRequest(account, 60, idempotency_key="c1"))
    assert ledger.balance(account).available == 1040


def test_one_key_from_many_threads_charges_once(ledger: Ledger) -> None:
    account = opened(ledger, "threads")
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(
            pool.map(
                lambda _: ledger.apply(ChargeRequest(account, 7, idempotency_key="k")), range(24)
            )
        )
    assert len({outcome.operation_id for outcome in outcomes}) == 1
    assert ledger.balance(account).available == 93


def test_charges_cannot_race_below_zero(ledger: Ledger) -> None:
    """INV-03: 40 charges of 7 on 100 credits, from 8 threads."""
    account = opened(ledger, "race")
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(
            pool.map(
                lambda n: ledger.apply(ChargeRequest(account, 7, idempotency_key=f"k{n}")),
                range(40),
            )
        )
    assert sum(outcome.status == "posted" for outcome in outcomes) == 14
    assert ledger.balance(account).available == 2


def test_a_run_is_charged_once_and_converges(ledger: Ledger) -> None:
    """INV-05: up, again, down, and beyond the credit."""
    account = opened(ledger, "runs")
    tenant = "tenant-runs"

    def converge(units: int) -> tuple[int, int]:
        (outcome,) = ledger.converge_run_charges([RunTarget(tenant, "r", units)])
        return outcome.delta_units, outcome.shortfall_units

    assert converge(30) == (30, 0)
    assert converge(30) == (0, 0)
    assert converge(45) == (15, 0)
    assert converge(20) == (-25, 0)
    assert ledger.balance(account).available == 80
    assert converge(150) == (130, 50)
    assert converge(150) == (0, 50)
    assert ledger.balance(account).available == 0
    assert converge(120) == (-30, 20)
    assert ledger.balance(account).available == 0
    with pytest.raises(Conflict):
        ledger.apply(ChargeRequest(account, 1, idempotency_key="again", run_id="r"))
    assert not ledger.verify()


def test_one_run_converged_by_many_threads(ledger: Ledger) -> None:
    account = opened(ledger, "many", 1000)
    targets = [RunTarget("tenant-many", f"r{n}", 10) for n in range(20)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ledger.converge_run_charges(targets), range(8)))
    assert ledger.balance(account).available == 800


def test_refunds_restore_the_same_lots(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, "refunds", 0)
    ledger.apply(GrantRequest(account, 10, idempotency_key="g1", source="promo", priority=1))
    ledger.apply(GrantRequest(account, 10, idempotency_key="g2"))
    charge = ledger.apply(ChargeRequest(account, 15, idempotency_key="c", run_id="r"))
    refund = ledger.apply(
        RefundRequest(idempotency_key="f1", charge_id=charge.operation_id, units=6)
    )
    assert refund.available == 11
    free = {bucket.source: bucket.available for bucket in ledger.balance(account).buckets}
    assert free == {"promo": 1, "topup": 10}
    with pytest.raises(InvalidInput) as caught:
        ledger.apply(RefundRequest(idempotency_key="f2", charge_id=charge.operation_id, units=10))
    assert caught.value.code == "refund_too_large"
    ledger.apply(RefundRequest(idempotency_key="f3", tenant_id="tenant-refunds", run_id="r"))
    assert ledger.balance(account).available == 20
    (outcome,) = ledger.converge_run_charges([RunTarget("tenant-refunds", "r", 15)])
    assert outcome.delta_units == 0, "what was refunded by hand is not charged again"
    assert not ledger.verify()


def test_expiry_is_an_ordinary_operation(ledger: Ledger, clock: FixedClock) -> None:
    account = opened(ledger, "expiry", 0)
    ledger.apply(
        GrantRequest(account, 50, idempotency_key="g1", expires_at=clock.micros + 10 * SECOND)
    )
    ledger.apply(GrantRequest(account, 5, idempotency_key="g2"))
    clock.micros += 10 * SECOND
    balance = ledger.balance(account)
    assert (balance.available, balance.expired) == (5, 50)
    assert ledger.apply(ChargeRequest(account, 6, idempotency_key="c")).status == "declined"
    entries, _ = ledger.entries(account)
    assert [(entry.kind, entry.units) for entry in entries] == [
        ("lot_expiry", -50),
        ("grant", 5),
        ("grant", 50),
    ]
    with pytest.raises(InvalidInput) as caught:
        ledger.apply(GrantRequest(account, 5, idempotency_key="g3", expires_at=clock.micros))
    assert caught.value.code == "expires_in_past"


def test_overage_is_paid_back_by_the_next_grant(ledger: Ledger) -> None:
    account = opened(ledger, "overage", 10, limit=20)
    ledger.apply(ChargeRequest(account, 25, idempotency_key="c"))
    assert (ledger.balance(account).available, ledger.balance(account).overage) == (-15, 15)
    ledger.apply(GrantRequest(account, 20, idempotency_key="g"))
    assert (ledger.balance(account).available, ledger.balance(account).overage) == (5, 0)
    with pytest.raises(Conflict):
        ledger.put_account(account, tenant_id="other")
    assert not ledger.verify()


def test_a_tenant_without_an_account_owes(ledger: Ledger) -> None:
    ledger.converge_run_charges([RunTarget("nobody", "r", 30)])
    assert ledger.balance("nobody").available == -30


def test_entries_page_through_everything_once(ledger: Ledger) -> None:
    account = opened(ledger, "pages")
    for number in range(7):
        ledger.apply(ChargeRequest(account, 1, idempotency_key=f"c{number}"))
    seen: list[int] = []
    cursor: str | None = None
    while True:
        page, cursor = ledger.entries(account, cursor=cursor, limit=3)
        seen += [entry.sequence for entry in page]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 8
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.operation SET units = 1",
        "DELETE FROM ledger.operation",
        "TRUNCATE ledger.operation",
        "DELETE FROM ledger.block",
        "UPDATE ledger.block SET leaves = ''",
        "DELETE FROM ledger.balance",
        "DELETE FROM ledger.run_charge",
        "DELETE FROM ledger.lot",
        "UPDATE log.batch SET payload = ''",
        "DELETE FROM catalog.rate_card_version",
    ],
)
def test_history_refuses_change(ledger: Ledger, postgres_url: str, statement: str) -> None:
    with (
        psycopg.connect(postgres_url) as connection,
        pytest.raises(psycopg.errors.IntegrityConstraintViolation),
    ):
        connection.execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.operation SET units = 1",
        "DELETE FROM ledger.operation",
        "TRUNCATE ledger.operation",
        "DELETE FROM ledger.balance",
        "UPDATE ledger.block SET hash = ''",
        "UPDATE ledger.account SET tenant_id = 'x'",
        "UPDATE log.batch SET payload = ''",
        "ALTER TABLE ledger.operation DISABLE TRIGGER ALL",
        "DROP TABLE ledger.operation",
        "CREATE TABLE ledger.mine (x integer)",
        "SET session_replication_role = replica",
    ],
)
def test_the_products_role_may_not_touch_history(
    ledger: Ledger, postgres_url: str, statement: str
) -> None:
    """By grants, before any trigger is asked."""
    pool = open_pool(postgres_url, connections_max=1)
    try:
        with (
            pool.connection() as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())
    finally:
        pool.close()


@pytest.mark.parametrize(("column", "value"), [("consumed", 101), ("held", 101), ("expired", -1)])
def test_the_database_holds_lots_within_their_grant(
    ledger: Ledger, postgres_url: str, column: str, value: int
) -> None:
    """INV-06"""
    opened(ledger, "lots")
    with (
        psycopg.connect(postgres_url) as connection,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        connection.execute(f"UPDATE ledger.lot SET {column} = {value}".encode())


def test_verify_names_what_was_tampered_with(ledger: Ledger, postgres_url: str) -> None:
    """INV-02: the balance row is the only thing a tamperer can change unseen by a trigger."""
    account = opened(ledger, "tampered")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        change = "UPDATE ledger.balance SET credited = credited + %s WHERE account_id = %s"
        connection.execute(change.encode(), (5, account))
        found = {violation.invariant_id: violation for violation in ledger.verify()}
        assert found["INV-02"].examples == [account]
        assert found["INV-15"].examples == [account]
        connection.execute(change.encode(), (-5, account))
    assert not ledger.verify()


def test_bad_input_has_a_stable_code(ledger: Ledger) -> None:
    account = opened(ledger, "bad")
    cases = [
        (GrantRequest(account, 0, idempotency_key="k"), "amount_not_positive"),
        (GrantRequest(account, -1, idempotency_key="k"), "amount_not_positive"),
        (GrantRequest(account, 2**63 - 1, idempotency_key="k"), "amount_too_large"),
        (GrantRequest(account, 1, idempotency_key=""), "key_missing"),
        (GrantRequest(account, 1, idempotency_key="é" * 65), "key_too_long"),
        (GrantRequest("nope", 1, idempotency_key="k"), "unknown_account"),
    ]
    for request, code in cases:
        with pytest.raises((InvalidInput, NotFound)) as caught:
            ledger.apply(request)
        assert caught.value.code == code
