"""The story of a run that is longer than its timeline shows: sums are over all of it."""

from __future__ import annotations

from typing import Any

from tallystick.analytics.runs import Runs
from tallystick.plumbing.clickhouse import ClickHouse
from tests.world import World


def usage(world: World, run: str, number: int) -> dict[str, Any]:
    return {
        "event_id": f"{run}-{number}",
        "event_type": "token_usage",
        "event_time": world.at(number - 100),
        "tenant_id": "acme",
        "run_id": run,
        "attempt": 1 + number // 10,
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_input": 1000,
        **({"error_code": "timeout"} if number % 10 == 9 else {}),
    }


def test_sums_of_a_run_are_over_all_of_it_when_its_timeline_is_cut(
    world: World, clickhouse: ClickHouse
) -> None:
    events = [usage(world, "long", number) for number in range(20)]
    world.send(events)
    world.send(events[:15])
    world.settle()
    whole = Runs(clickhouse, 20).get("long", "acme")
    cut = Runs(clickhouse, 7).get("long", "acme")
    assert (whole["is_timeline_cut"], cut["is_timeline_cut"]) == (False, True)
    assert cut["counts"] == {"events": 20, "late": 0, "duplicates": 15, "conflicts": 0}
    assert cut["timeline"] == whole["timeline"][:7]
    assert len(cut["duplicates"]) == 7
    for name in ("counts", "attempts", "cost_usd", "charge_lines", "cost_tree"):
        assert cut[name] == whole[name]
    assert [(one["attempt"], one["calls"], one["errors"]) for one in cut["attempts"]] == [
        (1, 10, 1),
        (2, 10, 1),
    ]
    assert [one["cost_usd"] for one in cut["attempts"]] == ["0.025", "0.025"]
    times = [event["occurred_at"] for event in whole["timeline"]]
    assert [(one["started_at"], one["ended_at"]) for one in cut["attempts"]] == [
        (times[0], times[9]),
        (times[10], times[19]),
    ]


def test_a_tree_of_many_children_costs_what_all_of_them_cost(
    world: World, clickhouse: ClickHouse
) -> None:
    children = [
        {**usage(world, f"child-{number}", number), "parent_run_id": "root"} for number in range(5)
    ]
    world.send([usage(world, "root", 0), *children])
    world.settle()
    whole = Runs(clickhouse, 5).get("root", "acme")["cost_tree"]
    cut = Runs(clickhouse, 4).get("root", "acme")["cost_tree"]
    assert (len(whole["children"]), whole["is_cut"]) == (5, False)
    assert (len(cut["children"]), cut["is_cut"]) == (4, True)
    assert cut["total_cost_usd"] == whole["total_cost_usd"] == "0.015"
