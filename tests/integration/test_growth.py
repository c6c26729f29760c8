"""What a round of work reads does not grow with what is over: with history, or with who waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tallystick.clock import DAY, HOUR, MINUTE, FixedClock
from tallystick.enforcement.budgets import Budgets, BudgetTerms, Threshold
from tallystick.enforcement.budgets import store as budget_rows
from tallystick.enforcement.budgets.crossing import Crossings
from tallystick.enforcement.calls.budgets import RunBudgets
from tallystick.enforcement.calls.facts import CallFacts
from tallystick.enforcement.calls.recovery import CallRecovery
from tallystick.enforcement.calls.store import CallStore
from tallystick.events.redaction import Redactor
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.ledger.convergence import _default_accounts
from tallystick.plumbing.postgres import open_pool
from tallystick.workers.pending import PendingRuns

NOW = 20_000 * DAY + HOUR
CLOCK = FixedClock(NOW)
MANY = 20_000
FEW = 1_000


@pytest.fixture(scope="module")
def pool(postgres_url: str) -> Iterator[ConnectionPool]:
    made = open_pool(postgres_url, connections_max=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def owner(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Fills tables. Nobody else reads them: vacuum does, by itself."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT schemaname || '.' || relname FROM pg_stat_user_tables"
        ).fetchall()
        for (table,) in tables:
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)".encode())
        yield connection


def fill(owner: psycopg.Connection[Any], *statements: str) -> None:
    """Rows by SQL, known to the planner."""
    for statement in (*statements, "ANALYZE", "SELECT pg_stat_force_next_flush()"):
        owner.execute(statement.encode())


def rows_read(pool: ConnectionPool, step: Callable[[], object]) -> int:
    """How many rows of tables a step reads."""
    before = _rows_read(pool)
    step()
    return _rows_read(pool) - before


def _rows_read(pool: ConnectionPool) -> int:
    with pool.connection() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
    with pool.connection() as connection:
        (found,) = connection.execute(
            "SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint "
            "FROM pg_stat_user_tables"
        ).fetchall()
    return int(found[0])


def test_the_account_of_usage_is_found_among_many_of_its_tenant(
    pool: ConnectionPool, owner: psycopg.Connection[Any]
) -> None:
    fill(
        owner,
        "INSERT INTO ledger.account (account_id, tenant_id, created_at) "
        f"SELECT 'customer-' || n, 'crowd', n FROM generate_series(1, {MANY}) n",
        "INSERT INTO ledger.account (account_id, tenant_id, created_at) VALUES ('own', 'own', 9), "
        "('older', 'own', 1), ('alien', 'nobody', 1)",
    )
    tenants = ["alien", "crowd", "none", "own"]  # "alien" is the name of another tenant's account

    def find() -> None:
        with pool.connection() as connection:
            found = _default_accounts(connection, tenants)
        assert found == {"crowd": "customer-1", "own": "own"}

    assert rows_read(pool, find) < FEW


def test_runs_to_charge_are_found_among_many_that_wait(
    pool: ConnectionPool, owner: psycopg.Connection[Any]
) -> None:
    fill(
        owner,
        "INSERT INTO charger.pending_run (tenant_id, charge_key, has_ended, touched_at) "
        f"SELECT 't', 'waits-' || n, false, {NOW} - n FROM generate_series(1, {MANY}) n",
        "INSERT INTO charger.pending_run (tenant_id, charge_key, has_ended, touched_at) "
        f"SELECT 't', 'ended-' || n, true, {NOW} - n FROM generate_series(1, {MANY}) n",
        "INSERT INTO charger.pending_run (tenant_id, charge_key, has_ended, touched_at, refused_at)"
        f" VALUES ('t', 'oldest', true, 1, 0), ('t', 'quiet', false, 2, 0), "
        f"('t', 'refused', true, 0, {NOW})",
    )
    pending = PendingRuns(pool)
    found: list[str] = []

    def find() -> None:
        due = pending.load_due(range(8), NOW - MINUTE, 10, NOW)
        found.extend(run.charge_key for run in due)

    assert rows_read(pool, find) < FEW
    assert found == ["oldest", "quiet", *(f"ended-{MANY - n}" for n in range(8))]


def test_a_process_begins_with_the_newest_budgets_of_runs(
    pool: ConnectionPool, owner: psycopg.Connection[Any]
) -> None:
    fill(
        owner,
        "INSERT INTO calls.run_budget (tenant_id, run_id, limit_id, asset, amount, changed_at) "
        f"SELECT 't', 'r' || n, 'run:t/r' || n, 'CREDIT/6', 1, {NOW} - ({MANY} - n) * {MINUTE} "
        f"FROM generate_series(1::bigint, {MANY}) n",
        "INSERT INTO ledger.limit_window (limit_id, asset, capacity) "
        "VALUES ('run:t/r1', 'CREDIT/6', 1)",
    )
    ledger = Ledger(pool, CLOCK, Uuid7Source(CLOCK))
    budgets = RunBudgets(CallStore(pool), ledger, CLOCK, known_max=10)
    assert rows_read(pool, budgets.refresh) < FEW
    assert rows_read(pool, budgets.refresh) < FEW
    assert list(budgets._known) == [("t", f"r{MANY - n}") for n in range(9, -1, -1)]
    asked = budgets._ask("t", "r1")  # the oldest: not known, and never taken for absent
    assert asked is not None and asked.limit_id == "run:t/r1"


def test_windows_that_are_over_are_not_looked_at(
    pool: ConnectionPool, owner: psycopg.Connection[Any]
) -> None:
    budgets = Budgets(pool, CLOCK)
    terms = BudgetTerms(
        asset="USD", amount=100, window="day", scope={"user": "*"}, carry_over_max=5,
        thresholds=(Threshold(Decimal(1), "alert"),),
    )  # fmt: skip
    budgets.put("t", "b", terms, changed_by="test")
    day = NOW // DAY * DAY
    fill(
        owner,
        "INSERT INTO enforcement.budget_window "
        "(limit_id, tenant_id, budget_id, each, start_at, end_at, carried) "
        "SELECT 'budget:t/b/' || d || '/e' || u, 't', 'b', jsonb_build_object('user', 'u' || u), "
        f"{day} - d * {DAY}, {day} - (d - 1) * {DAY}, 0 "
        f"FROM generate_series(0::bigint, {MANY // 20}) d, generate_series(1, 20) u",
        "INSERT INTO ledger.limit_window (limit_id, asset, capacity, used) "
        "SELECT limit_id, 'USD/9', 100, 7 FROM enforcement.budget_window",
    )

    def load_each() -> None:
        with pool.connection() as connection:
            assert len(budget_rows.load_each(connection, NOW)) == 20

    shown: list[int] = []
    steps: dict[str, Callable[[], Any]] = {
        "crossings": Crossings(pool, None, CLOCK).check,
        "carried": budgets.refresh_carried,
        "each": load_each,
        "shown": lambda: shown.extend(one.start_at for one in budgets.windows("t", "b", 30)),
    }
    read = {name: rows_read(pool, step) for name, step in steps.items()}
    assert {name: count for name, count in read.items() if count > FEW} == {}
    assert shown == [day] * 20 + [day - DAY] * 10


class JudgedStore(CallStore):
    """Remembers from when on it was asked."""

    def __init__(self) -> None:
        self.since: list[int] = []

    def load_resolved_calls(self, *, since: int, **_: Any) -> list[Any]:
        self.since.append(since)
        return []

    def load_open_calls(self, **_: Any) -> list[Any]:
        return []


def test_calls_that_were_judged_are_not_looked_at_for_a_week(pool: ConnectionPool) -> None:
    """But those that ended lately: they may not be due to be judged."""
    clock = FixedClock(NOW)
    ledger = Ledger(pool, clock, Uuid7Source(clock))
    store = JudgedStore()
    recovery = CallRecovery(
        store, CallFacts.__new__(CallFacts), ledger, lambda _: None, Redactor(b"k" * 32), clock
    )
    recovery.run()
    clock.micros += MINUTE
    recovery.run()
    assert store.since[0] == NOW - 7 * DAY
    assert NOW - 2 * HOUR < store.since[1] < NOW - HOUR
