"""Windows in the ledger with clocks that stand still: rolling, carry-over, usage, thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tallystick.clock import DAY, HOUR, MINUTE, FixedClock
from tallystick.enforcement.alerts import Signal
from tallystick.enforcement.budgets import (
    ActiveBudgets,
    Budgets,
    BudgetTerms,
    Threshold,
    WindowPart,
)
from tallystick.enforcement.budgets.crossing import Crossings
from tallystick.errors import NotFound
from tallystick.ids import Uuid7Source
from tallystick.ledger import (
    CaptureRequest,
    ChargeRequest,
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    Ledger,
    LimitPart,
    Outcome,
)
from tallystick.plumbing.postgres import open_pool
from tallystick.workers.budgets import BudgetKeeper

START = 20_000 * DAY
_serial = count()


class Heard:
    """A sink of signals that only remembers."""

    def __init__(self) -> None:
        self.raised: list[Signal] = []
        self.cleared: list[str] = []

    def raise_signal(self, connection: psycopg.Connection[Any], signal: Signal) -> None:
        self.raised.append(signal)

    def clear(self, connection: psycopg.Connection[Any], signal_id: str, at: int) -> None:
        self.cleared.append(signal_id)


class Scene:
    """A tenant with an account, and a budget in dollars."""

    def __init__(self, pool: ConnectionPool, **terms: Any) -> None:
        self.pool = pool
        self.clock = FixedClock(START)
        self.tenant = f"w{next(_serial)}"
        self.ledger = Ledger(pool, self.clock, Uuid7Source(self.clock))
        self.budgets = Budgets(pool, self.clock)
        self.heard = Heard()
        self.keeper = BudgetKeeper(
            self.ledger, self.budgets, Crossings(pool, self.heard, self.clock), self.clock
        )
        self.ledger.put_account(self.tenant, tenant_id=self.tenant)
        self.ledger.apply(GrantRequest(self.tenant, 10**9, idempotency_key="g"))
        self.terms = BudgetTerms(**{"asset": "USD", "amount": 100, "window": "day", **terms})
        self.put()

    def put(self, **terms: Any) -> None:
        changed = BudgetTerms(**{name: getattr(self.terms, name) for name in self.terms.__struct_fields__} | terms)  # fmt: skip # noqa: E501
        self.terms = changed
        self.budgets.put(self.tenant, "b", changed, changed_by="test")

    def part(self) -> WindowPart:
        active = ActiveBudgets()
        self.budgets.refresh(active)
        (part,) = active.match(self.tenant, {}, self.clock.now())
        self.budgets.open_windows([part])
        return part

    def hold(self, units: int) -> Outcome:
        return self.ledger.apply(
            HoldRequest(
                self.tenant,
                1,
                limits=(LimitPart(self.part().limit_id, units),),
                idempotency_key=f"k{next(_serial)}",
            )
        )

    def use(self, units: int) -> str:
        outcome = self.hold(units)
        if outcome.status == "posted":
            self.capture(outcome.hold_id, units)
        return outcome.status

    def capture(self, hold_id: str, units: int) -> Outcome:
        request = CaptureRequest(hold_id, 1, actuals=(("USD/9", units),), idempotency_key="c")
        return self.ledger.apply(request)

    def counted(self) -> tuple[int, int, int]:
        """Used, held and capacity of the window of now."""
        (limit,) = self.ledger.load_limits([self.part().limit_id])
        return limit.used, limit.held, limit.capacity


@pytest.fixture(scope="module")
def pool(postgres_url: str) -> Iterator[ConnectionPool]:
    made = open_pool(postgres_url, connections_max=2)
    yield made
    assert Ledger(made, FixedClock(START), Uuid7Source(FixedClock(START))).verify() == []
    made.close()


def test_a_rolling_hour_frees_usage_after_an_hour_never_before(pool: ConnectionPool) -> None:
    scene = Scene(pool, window="rolling", rolling_hours=1)
    assert scene.use(60) == "posted"
    scene.clock.micros += 30 * MINUTE
    assert scene.use(40) == "posted"
    scene.clock.micros += 30 * MINUTE  # the first usage is exactly an hour old
    assert scene.use(1) == "declined"
    scene.clock.micros += MINUTE  # and now its slice of a minute as well
    assert scene.use(60) == "posted"
    assert scene.use(1) == "declined"
    scene.clock.micros += 2 * HOUR
    assert scene.ledger.roll_off() >= 1
    assert scene.counted() == (0, 0, 100)
    assert scene.ledger.roll_off() == 0


def test_what_a_rolling_window_corrects_after_it_rolled_off_frees_nothing(
    pool: ConnectionPool,
) -> None:
    scene = Scene(pool, window="rolling", rolling_hours=1)
    held = scene.hold(50)
    scene.clock.micros += HOUR
    scene.ledger.settle_due()
    scene.capture(held.hold_id, 30)  # late: recorded now
    assert scene.counted()[0] == 30
    with pool.connection() as connection:
        usage = [(scene.part().limit_id, "run-1", 40)]
        scene.ledger.count_usage(connection, usage)
    scene.clock.micros += 3 * HOUR
    with pool.connection() as connection:
        scene.ledger.count_usage(connection, [(scene.part().limit_id, "run-1", 10)])
    assert scene.counted()[0] == 0


def test_usage_without_authorization_converges_and_may_overrun(pool: ConnectionPool) -> None:
    scene = Scene(pool)
    limit_id = scene.part().limit_id
    targets = [(limit_id, "run-1", 70), (limit_id, "run-2", 50)]
    for expected in ({(limit_id, "run-1"): 70, (limit_id, "run-2"): 50}, {}):
        with pool.connection() as connection:
            assert scene.ledger.count_usage(connection, targets) == expected
    (limit,) = scene.ledger.load_limits([limit_id])
    assert (limit.used, limit.overrun) == (120, 20)
    assert scene.use(1) == "declined"
    with pool.connection() as connection:  # a correction is a delta too
        found = scene.ledger.count_usage(connection, [(limit_id, "run-1", 30)])
    assert found == {(limit_id, "run-1"): -40}
    assert scene.counted() == (80, 0, 100)
    with pytest.raises(NotFound), pool.connection() as connection:
        scene.ledger.count_usage(connection, [("nobody's", "run-1", 1)])
    with pool.connection() as connection:  # nothing of a transaction that is undone
        scene.ledger.count_usage(connection, [(limit_id, "run-9", 5)])
        connection.rollback()
    assert scene.counted() == (80, 0, 100)


def test_what_is_left_is_carried_over_up_to_a_maximum(pool: ConnectionPool) -> None:
    scene = Scene(pool, carry_over_max=30)
    assert scene.use(80) == "posted"
    held = scene.hold(10)
    scene.clock.micros += DAY
    assert scene.counted() == (0, 0, 110)  # 100 - 80 - 10 that is held still
    scene.capture(held.hold_id, 4)
    scene.keeper.step()
    assert scene.counted() == (0, 0, 116)
    scene.clock.micros += 2 * DAY  # nobody worked in the day between
    assert scene.counted() == (0, 0, 130)
    scene.put(amount=50)
    assert scene.counted() == (0, 0, 80)


def test_an_edit_below_what_is_counted_blocks_at_once(pool: ConnectionPool) -> None:
    scene = Scene(pool)
    held = scene.hold(60)
    scene.put(amount=40)
    assert scene.counted() == (0, 60, 40)
    assert scene.use(1) == "declined"
    scene.capture(held.hold_id, 30)
    assert scene.use(10) == "posted"
    assert scene.use(1) == "declined"
    scene.put(amount=100)
    assert scene.use(60) == "posted"


def test_thresholds_block_early_and_are_told_once(pool: ConnectionPool) -> None:
    thresholds = (Threshold(Decimal("0.5"), "alert"), Threshold(Decimal("0.9"), "block"))
    scene = Scene(pool, thresholds=thresholds)
    assert scene.use(49) == "posted"
    scene.keeper.step()
    assert scene.heard.raised == []
    assert scene.use(41) == "posted"
    assert scene.use(1) == "declined"  # 0.9 of the amount blocks
    for _ in range(3):
        scene.keeper.step()
    limit_id = scene.part().limit_id
    assert [one.signal_id for one in scene.heard.raised] == [f"{limit_id}/0.5", f"{limit_id}/0.9"]
    assert [one.severity for one in scene.heard.raised] == ["warning", "critical"]
    scene.put(amount=1000)
    scene.keeper.step()
    assert sorted(scene.heard.cleared) == [f"{limit_id}/0.5", f"{limit_id}/0.9"]
    scene.use(500)
    scene.keeper.step()
    assert len(scene.heard.raised) == 3
    scene.clock.micros += DAY
    scene.keeper.step()
    assert len(scene.heard.cleared) == 3


def test_work_of_unknown_cost_needs_room_and_is_counted_after(pool: ConnectionPool) -> None:
    scene = Scene(pool)
    first, second = scene.hold(0), scene.hold(0)
    scene.capture(first.hold_id, 70)
    scene.capture(second.hold_id, 50)
    assert scene.counted() == (120, 0, 100)
    assert scene.hold(0).status == "declined"


def test_extensions_and_charges_take_room_by_asset(pool: ConnectionPool) -> None:
    scene = Scene(pool)
    held = scene.hold(60)

    def extend(units: int, key: str) -> Outcome:
        more = (("USD/9", units), ("tokens", 5))
        return scene.ledger.apply(ExtendRequest(held.hold_id, actuals=more, idempotency_key=key))

    assert extend(41, "a").decided_by == f"limit:{scene.part().limit_id}"
    assert extend(30, "b").status == "posted"
    assert scene.counted() == (0, 90, 100)
    part = LimitPart(scene.part().limit_id, 11)
    charge = ChargeRequest(scene.tenant, 1, limits=(part,), idempotency_key="x")
    assert scene.ledger.apply(charge).code == "budget_exceeded"
    part = LimitPart(scene.part().limit_id, 10)
    charge = ChargeRequest(scene.tenant, 1, limits=(part,), idempotency_key="y")
    assert scene.ledger.apply(charge).status == "posted"
    assert scene.ledger.apply(charge).status == "posted"  # the same charge
    assert scene.counted() == (10, 90, 100)


def test_soft_and_shadow_let_through_and_say_so(pool: ConnectionPool) -> None:
    for terms in ({"is_hard": False}, {"is_shadow": True}):
        scene = Scene(pool, **terms)
        assert scene.hold(90).decided_by == ""
        passed = scene.hold(20)
        assert passed.status == "posted"
        assert passed.decided_by == f"limit:{scene.part().limit_id}"
        (limit,) = scene.ledger.load_limits([scene.part().limit_id])
        assert (limit.held, limit.overrun, limit.let_through) == (110, 10, 1)
