"""What budgets allow a minute, and who spends at many times of it; on real stores."""

from __future__ import annotations

from typing import Any

from tallystick.clock import MINUTE, format_time
from tallystick.enforcement.allowed_rates import AllowedRates
from tallystick.enforcement.budgets import ActiveBudgets, Budgets, BudgetTerms
from tallystick.enforcement.overrun import OverrunResponse
from tallystick.enforcement.overrun.model import SeriesKey
from tallystick.enforcement.overrun.reader import FactSeries
from tallystick.ids import Uuid7Source
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.workers.overrun import OverrunWorker
from tests.world import World

_DOLLAR = 10**9


def put(budgets: Budgets, name: str, dollars: int, **terms: Any) -> None:
    made = BudgetTerms(**{"asset": "USD", "amount": dollars * _DOLLAR, "window": "day", **terms})
    budgets.put("paced", name, made, changed_by="test")


def test_the_even_pace_of_each_series(world: World) -> None:
    budgets = Budgets(world.pool, world.clock)
    put(budgets, "all", 1440)
    put(budgets, "team", 2880, scope={"team": "search"})
    put(budgets, "strict", 60, scope={"team": "search"}, window="rolling", rolling_hours=1)
    put(budgets, "both", 1, scope={"team": "search", "user": "ann"})
    put(budgets, "users", 1440, scope={"user": "*"})
    put(budgets, "shadow", 1, scope={"user": "bob"}, is_shadow=True)
    put(budgets, "counted", 1, scope={"user": "eve"}, asset="tokens")
    active = ActiveBudgets()
    budgets.refresh(active)
    with world.pool.connection() as connection:
        parts = active.match("paced", {"user": "ann"}, world.clock.now())
        budgets.make_windows(connection, parts)
    found = AllowedRates(world.pool, budgets, world.clock).rates()
    assert found == {
        SeriesKey("paced", "tenant", "paced"): _DOLLAR,
        SeriesKey("paced", "team", "search"): _DOLLAR,
        SeriesKey("paced", "user", "ann"): _DOLLAR,
    }


def test_who_spends_far_above_the_pace_is_told_of(world: World, clickhouse: ClickHouse) -> None:
    """Without any history of what is usual: the budget alone says what is too fast."""
    budgets, ids = Budgets(world.pool, world.clock), Uuid7Source(world.clock)
    terms = BudgetTerms(asset="USD", amount=10 * _DOLLAR, window="day", scope={"team": "fast"})
    budgets.put("burning", "team", terms, changed_by="test")
    allowed = AllowedRates(world.pool, budgets, world.clock)
    reader = FactSeries(clickhouse, world.positions)
    worker = OverrunWorker(reader, world.pool, world.clock, ids, rates=allowed.rates)
    worker.step()
    now = world.clock.now()
    world.send(
        [
            {
                "event_id": f"burn-{number}",
                "event_type": "token_usage",
                "event_time": format_time(now - number * MINUTE // 2),
                "tenant_id": "burning",
                "team": "fast",
                "provider": "openai",
                "model": "gpt-4o",
                "tokens_input": 100_000,
                "tokens_output": 10_000,
            }
            for number in range(140)
        ]
    )
    world.settle()
    while worker.step():
        pass
    response = OverrunResponse(world.pool, clickhouse, world.clock, ids)
    (found,) = response.launches.overruns("burning", is_open=True, limit=10)
    assert (found.dimension, found.value) == ("team", "fast")
    assert "the budget's even rate" in found.detail
