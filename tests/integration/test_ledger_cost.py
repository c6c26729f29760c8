"""What the ledger must not do: look through other runs, or work where there is nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import psycopg

from tallystick.clock import SECOND, FixedClock
from tallystick.ledger import (
    CaptureRequest,
    GrantRequest,
    HoldRequest,
    Ledger,
    RunTarget,
)
from tallystick.ledger.intake import prepare
from tallystick.ledger.store import Plan, drive
from tallystick.plumbing.postgres import BY_INDEX

_serial = count()


def opened(ledger: Ledger) -> str:
    """An account of a tenant of the same name."""
    name = f"cost{next(_serial)}"
    ledger.put_account(name, tenant_id=name)
    ledger.apply(GrantRequest(name, 1_000_000, idempotency_key="first"))
    return name


def held(ledger: Ledger, account: str, run: str, **more: Any) -> str:
    """A hold of 10 for a run."""
    key = f"hold{next(_serial)}"
    request = HoldRequest(account, 10, run_id=run, idempotency_key=key, **more)
    return ledger.apply(request).hold_id


def called(ledger: Ledger, account: str, run: str, units: int) -> None:
    """Hold and capture for a run, as a call does."""
    hold_id = held(ledger, account, run)
    ledger.apply(CaptureRequest(hold_id, units, idempotency_key="settle"))


def capture_plan(ledger: Ledger, hold_id: str, units: int) -> Plan[Any]:
    request = CaptureRequest(hold_id, units, idempotency_key="settle")
    return ledger.plan_group([prepare(request, "")])


def between(plan: Plan[Any], act: Callable[[], object]) -> Plan[Any]:
    """The same plan; something happens once it has read and before it writes."""
    batch = next(plan)
    while not any("run_charges" in query.name and query.parts for query in batch.queries):
        rows = yield batch
        batch = plan.send(rows)
    act()
    try:
        while True:
            rows = yield batch
            batch = plan.send(rows)
    except StopIteration as stop:
        return stop.value


def test_a_hold_reads_no_other_run(ledger: Ledger, postgres_url: str) -> None:
    """With the plan of a connection that was there when the tables were empty."""
    account = opened(ledger)
    with psycopg.connect(postgres_url, options=BY_INDEX, prepare_threshold=0) as connection:

        def hold(run: str) -> None:
            request = HoldRequest(account, 1, run_id=run, idempotency_key=run)
            drive(connection, ledger.plan_group([prepare(request, "")]))
            connection.commit()

        hold("before")
        ledger.converge_run_charges([RunTarget(account, f"r{n}", 1) for n in range(2_000)])
        before = _rows_read(connection)
        for number in range(5):
            hold(f"after{number}")
        assert _rows_read(connection) - before < 100


def _rows_read(connection: psycopg.Connection[tuple[int]]) -> int:
    """Index entries of charges and operations that were read so far."""
    connection.execute("SELECT pg_stat_force_next_flush()")
    connection.commit()
    found = connection.execute(
        "SELECT sum(idx_tup_read)::bigint FROM pg_stat_user_indexes "
        "WHERE relname IN ('run_charge', 'operation')"
    ).fetchone()
    connection.commit()
    assert found is not None
    return found[0]


def test_a_captured_run_converges_without_an_operation(ledger: Ledger) -> None:
    """Nor does it wait for its account, which another transaction has locked."""
    account = opened(ledger)
    for number in range(20):
        called(ledger, account, f"r{number}", 7)
    before = ledger.balance(account).sequence
    targets = [RunTarget(account, f"r{number}", 7) for number in range(20)]
    with ledger._pool.connection() as other:
        other.execute("SELECT FROM ledger.balance FOR UPDATE")
        for is_first in (True, False):
            outcomes = ledger.converge_run_charges(targets)
            assert [(one.delta_units, one.operation_id) for one in outcomes] == [(0, None)] * 20
            assert {one.is_first for one in outcomes} == {is_first}
        other.rollback()
    assert ledger.balance(account).sequence == before
    charge = ledger.load_run_charge(account, "r3")
    assert charge is not None
    assert (charge.target, charge.charged, charge.has_facts, charge.is_stale) == (7, 7, True, False)


def test_only_differences_make_operations(ledger: Ledger) -> None:
    account = opened(ledger)
    for run in ("same", "more", "less"):
        called(ledger, account, run, 7)
    before = ledger.balance(account).sequence
    units = {"same": 7, "more": 9, "less": 4, "new": 3}
    outcomes = ledger.converge_run_charges([RunTarget(account, *one) for one in units.items()])
    assert [one.run_id for one in outcomes] == list(units)
    assert [one.delta_units for one in outcomes] == [0, 2, -3, 3]
    assert ledger.balance(account).sequence == before + 3


def test_an_unknown_hold_of_a_charged_run_still_ends(ledger: Ledger, clock: FixedClock) -> None:
    """The run's charge is its target already, but the facts must set its other hold free."""
    account = opened(ledger)
    called(ledger, account, "r", 7)
    held(ledger, account, "r", has_started=True, ttl_seconds=5)
    clock.micros += 6 * SECOND
    ledger.settle_due()
    assert ledger.balance(account).held == 10
    ledger.converge_run_charges([RunTarget(account, "r", 7)])
    assert ledger.balance(account).held == 0


def test_a_capture_under_way_is_not_confirmed_behind_its_back(
    ledger: Ledger, postgres_url: str
) -> None:
    """It has written and not committed: convergence waits for it, then facts have the last word."""
    account = opened(ledger)
    called(ledger, account, "r", 7)
    second = held(ledger, account, "r")
    with psycopg.connect(postgres_url) as connection:
        drive(connection, capture_plan(ledger, second, 5))
        converging = threading.Thread(
            target=ledger.converge_run_charges, args=([RunTarget(account, "r", 7)],)
        )
        converging.start()
        connection.commit()
        converging.join()
    charge = ledger.load_run_charge(account, "r")
    assert charge is not None
    assert (charge.target, charge.charged, charge.has_facts) == (7, 7, True)


def test_a_capture_that_read_before_the_confirmation_is_converged_again(
    ledger: Ledger, postgres_url: str
) -> None:
    """It decided without knowing of the facts: the run is stale, so they are asked again."""
    account = opened(ledger)
    called(ledger, account, "r", 7)
    second = held(ledger, account, "r")
    target = RunTarget(account, "r", 7)
    with psycopg.connect(postgres_url) as connection:
        plan = capture_plan(ledger, second, 5)
        drive(connection, between(plan, lambda: ledger.converge_run_charges([target])))
        connection.commit()
    charge = ledger.load_run_charge(account, "r")
    assert charge is not None
    assert (charge.charged, charge.has_facts, charge.is_stale) == (12, True, True)
    assert (account, "r") in ledger.load_stale_runs()
    assert ledger.converge_run_charges([target])[0].delta_units == -5
    assert (account, "r") not in ledger.load_stale_runs()
