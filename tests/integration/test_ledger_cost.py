"""What the ledger must not do: look through other runs, or work where there is nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

from tallystick.clock import FixedClock
from tallystick.ids import Uuid7Source
from tallystick.ledger import (
    CaptureRequest,
    GrantRequest,
    HoldRequest,
    Ledger,
    RunTarget,
)
from tallystick.ledger.intake import prepare
from tallystick.ledger.store import drive
from tallystick.plumbing.postgres import BY_INDEX, open_pool

NOW = 1_790_000_000_000_000
_serial = count()


@pytest.fixture
def ledger(postgres_url: str) -> Iterator[Ledger]:
    clock = FixedClock(NOW)
    pool = open_pool(postgres_url, connections_max=4)
    made = Ledger(pool, clock, Uuid7Source(clock))
    yield made
    assert made.verify() == []
    pool.close()


def opened(ledger: Ledger) -> str:
    """An account of a tenant of the same name."""
    name = f"cost{next(_serial)}"
    ledger.put_account(name, tenant_id=name)
    ledger.apply(GrantRequest(name, 1_000_000, idempotency_key="first"))
    return name


def called(ledger: Ledger, account: str, run: str, units: int) -> None:
    """Hold and capture for a run, as a call does."""
    hold = ledger.apply(HoldRequest(account, 10, run_id=run, idempotency_key=f"hold {run}"))
    ledger.apply(CaptureRequest(hold.hold_id, units, idempotency_key="settle"))


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
