"""Usage that never asked counts against its budgets, and soft budgets tell; on real stores."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import msgspec
import pytest

from tallystick.clock import DAY, HOUR, FixedClock
from tallystick.enforcement.vault import (
    Assignment,
    Counting,
    Quotas,
    Threshold,
    Thresholds,
    VaultStore,
)
from tallystick.enforcement.vault.model import Connection
from tallystick.ledger import CaptureRequest, HoldRequest
from tallystick.ledger.model import LimitPart
from tallystick.plumbing.postgres import transaction
from tests.backfills import BackfillWorld
from tests.vault_world import Bell, TestBudgets, UsageTable, follow, follower_of, heads_of, rebuilt
from tests.world import World

_tags = count()
_PRICE = 350_000
"""USD/9 of one call below."""


@pytest.fixture
def tag() -> str:
    return f"budgeted{next(_tags)}"


def call(world: World, tag: str, name: str, run: str = "", **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"{tag}-{name}",
        "event_type": "token_usage",
        "event_time": world.at(-1),
        "tenant_id": tag,
        "run_id": run and f"{tag}-{run}",
        "team": "search",
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_input": 100,
        "tokens_output": 10,
        **changes,
    }


def budget_of(world: World, tag: str, **changes: Any) -> Assignment:
    day = world.clock.now() // DAY * DAY
    made: dict[str, Any] = {
        "budget_id": tag,
        "limit_id": f"{tag}@{day}",
        "tenant_id": tag,
        "scope": {"team": "search"},
        "asset": "USD",
        "amount_units": 10 * _PRICE,
        "from_at": day - DAY,
        "to_at": day + 2 * DAY,
    }
    return Assignment(**{**made, **changes})


class Scene:
    """One vault that counts against budgets."""

    def __init__(self, world: World, budgets: list[Assignment], bell: Bell | None = None) -> None:
        self.world, self.budgets = world, TestBudgets(budgets)
        self.table, self.store = UsageTable(world), VaultStore(world.pool)
        self.clock = FixedClock(world.clock.now())
        self.counting = Counting(
            world.pool,
            self.store,
            self.budgets,
            self.table,
            self.clock,
            heads_of(world),
            Thresholds(self.store, bell) if bell else None,
        )

    def follow(self) -> None:
        self.clock.micros += HOUR // 60
        follow(follower_of(self.world, counting=self.counting))
        while self.counting.settle():
            pass

    def used(self) -> int:
        return sum(self.table.used(self.budgets.assignments[0].limit_id).values())


def hold(world: World, tag: str, run: str, limit_id: str, units: int) -> str:
    world.ledger.put_account(tag, tenant_id=tag, overage_limit_units=10**12)
    world.ledger.put_limit(limit_id, asset="USD/9", capacity=10**12)
    request = HoldRequest(
        account_id=tag,
        units=1,
        run_id=f"{tag}-{run}",
        limits=(LimitPart(limit_id, units),),
        idempotency_key=f"hold-{tag}-{run}",
    )
    outcome = world.ledger.apply(request)
    return str(outcome.hold_id)


def capture(world: World, hold_id: str, limit_id: str, units: int) -> None:
    request = CaptureRequest(
        hold_id=hold_id,
        units=1,
        limits=(LimitPart(limit_id, units),),
        idempotency_key=f"end-{hold_id}",
    )
    world.ledger.apply(request)


def test_only_what_was_not_captured_counts(world: World, tag: str) -> None:
    """One run asked and paid, one asked for less than it used, two never asked."""
    scene = Scene(world, [budget := budget_of(world, tag)])
    scene.follow()
    for run, captured in (("paid", _PRICE), ("short", _PRICE - 50_000)):
        held = hold(world, tag, run, budget.limit_id, _PRICE)
        capture(world, held, budget.limit_id, captured)
    world.send([call(world, tag, run, run) for run in ("paid", "short", "wild")])
    world.send([call(world, tag, "no-run"), call(world, tag, "else", team="ads")])
    scene.follow()
    assert scene.table.used(budget.limit_id) == {
        f"run:{tag}/{tag}-paid": 0,
        f"run:{tag}/{tag}-short": 50_000,
        f"run:{tag}/{tag}-wild": _PRICE,
        f"run:{tag}/": _PRICE,
    }


def test_a_run_waits_for_its_hold_to_end(world: World, tag: str) -> None:
    scene = Scene(world, [budget := budget_of(world, tag)])
    scene.follow()
    held = hold(world, tag, "slow", budget.limit_id, 2 * _PRICE)
    world.send([call(world, tag, "slow", "slow")])
    scene.follow()
    assert scene.table.used(budget.limit_id) == {}
    capture(world, held, budget.limit_id, _PRICE // 2)
    scene.follow()
    assert scene.used() == _PRICE - _PRICE // 2


def test_what_the_ledger_captures_later_is_taken_back(world: World, tag: str) -> None:
    """Counted while nothing was held; a second hold of the run then paid for it."""
    scene = Scene(world, [budget := budget_of(world, tag)])
    world.send([call(world, tag, "first", "run")])
    scene.follow()
    world.send([call(world, tag, "second", "run")])
    scene.follow()
    counted = scene.used()
    assert counted == 2 * _PRICE
    held = hold(world, tag, "run", budget.limit_id, _PRICE)
    capture(world, held, budget.limit_id, _PRICE)
    scene.follow()
    assert scene.used() == counted - _PRICE


def test_a_budget_in_the_middle_of_a_window_begins_with_what_was_spent(
    world: World, tag: str
) -> None:
    """And a replay begins to count run by run where it did."""
    world.send([call(world, tag, f"before{number}", "old") for number in range(3)])
    scene = Scene(world, [])
    scene.follow()
    scene.budgets.assignments.append(budget := budget_of(world, tag))
    scene.follow()
    assert scene.table.used(budget.limit_id) == {"baseline": 3 * _PRICE}
    world.send([call(world, tag, "after", "old"), call(world, tag, "after2", "new")])
    scene.follow()
    assert scene.used() == 5 * _PRICE
    before, spent = runs_of(world, tag), scene.store.dump()
    assert len(before) == 3
    for events_per_step in (1, 50_000):
        again = rebuilt(world, counting=scene.counting, events_per_step=events_per_step)
        assert (runs_of(world, tag), again) == (before, spent)
    scene.follow()
    assert scene.used() == 5 * _PRICE


def runs_of(world: World, tag: str) -> list[tuple[Any, ...]]:
    """The store is shared by the tests: what this one's limit was used by."""
    with transaction(world.pool) as connection:
        return connection.execute(
            "SELECT limit_id, source_key, spent_units FROM enforcement.vault_run "
            "WHERE spent_units <> 0 AND strpos(limit_id || source_key, %s) > 0 "
            "ORDER BY limit_id, source_key",
            (tag,),
        ).fetchall()


def test_quotas_say_what_remains(world: World, tag: str) -> None:
    budget = budget_of(
        world,
        tag,
        held_units=_PRICE,
        thresholds=(Threshold("0.1"), Threshold("0.8", "block")),
    )
    world.send([call(world, tag, "one", "run"), call(world, tag, "two", "run")])
    follow(follower_of(world))
    quotas = Quotas(VaultStore(world.pool), TestBudgets([budget]))
    (quota,) = quotas.report(tag, {"team": "search", "user": "any"}, world.clock.now())["quotas"]
    assert {name: quota[name] for name in ("assigned", "spent", "held", "remaining")} == {
        "assigned": "0.0035",
        "spent": "0.0007",
        "held": "0.00035",
        "remaining": "0.00245",
    }
    assert quota["percent_used"] == "20.00"
    assert [one["is_crossed"] for one in quota["thresholds"]] == [True, False]
    assert quotas.report(tag, {"team": "ads"}, world.clock.now())["quotas"] == []


def test_a_soft_budget_tells_and_takes_back(world: World, tag: str) -> None:
    bell = Bell()
    thresholds = (Threshold("0.1"), Threshold("1"))
    scene = Scene(world, [budget_of(world, tag, is_soft=True, thresholds=thresholds)], bell)
    world.send([call(world, tag, "one", "run")])
    scene.follow()
    (signal,) = bell.raised.values()
    assert signal.signal_id.endswith("/0.1") and signal.severity == "warning"
    assert signal.how_much == "0.00035 of 0.0035 USD" and signal.who == "team=search"
    scene.budgets.assignments[0] = budget_of(
        world, tag, is_soft=True, thresholds=thresholds, amount_units=100 * _PRICE
    )
    scene.follow()
    assert bell.raised == {} and signal.signal_id in bell.cleared


def test_a_correction_of_what_a_baseline_counted_lessens_it(world: World, tag: str) -> None:
    """Its run falls below zero, which no ledger can count: the baseline takes the rest."""
    backfills = BackfillWorld(world)
    backfills.set_prices(tag, "3", "0.2")
    world.send([call(world, tag, "one", "run", provider="p", model="m")])
    world.settle()
    scene = Scene(world, [])
    scene.follow()
    scene.budgets.assignments.append(budget := budget_of(world, tag))
    scene.follow()
    assert scene.table.used(budget.limit_id) == {"baseline": 330_000}
    backfills.set_prices(tag, "1", "0.2")
    assert backfills.run(tag)["status"] == "done"
    scene.follow()
    assert scene.used() == 110_000
    before = runs_of(world, tag)
    assert rebuilt(world, counting=scene.counting)
    assert runs_of(world, tag) == before


def test_a_budget_of_each_user_has_a_window_for_each(world: World, tag: str) -> None:
    scene = Scene(world, [])
    scene.budgets = EachUser(tag, budget_of(world, tag))
    scene.counting._assignments = scene.budgets
    world.send([call(world, tag, f"{user}{n}", user_id=user) for user in "ab" for n in range(2)])
    scene.follow()
    used = [scene.table.used(f"{tag}/{user}") for user in "ab"]
    assert used == [{f"run:{tag}/": 2 * _PRICE}] * 2


class EachUser(TestBudgets):
    """One budget with a window for each user."""

    __test__ = False

    def __init__(self, tag: str, budget: Assignment) -> None:
        super().__init__([budget])
        self._tag = tag

    def matching(self, tenant_id: str, scope: Mapping[str, str], at: int) -> list[Assignment]:
        (budget,) = self.assignments
        limit_id, own = f"{self._tag}/{scope['user']}", {"user": scope["user"]}
        return [msgspec.structs.replace(budget, limit_id=limit_id, scope=own)]

    def current(self, connection: Connection, at: int) -> list[Assignment]:
        return []
