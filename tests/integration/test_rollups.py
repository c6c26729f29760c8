"""When each rollup is folded: what somebody waits for at once, the rest seldom, all exactly once.

The followers are moved step by step, at a clock that is moved by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tallystick.analytics.store import FOLDED_FROM_DELTAS, FOLDED_FROM_FACTS
from tallystick.clock import HOUR, SECOND, FixedClock, format_time
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.workers import rollups as rollups_module
from tallystick.workers.rollups import COARSE_EVERY, RUNS_EVERY
from tests.world import World

NOON = 1_790_000_000_000_000 // HOUR * HOUR + HOUR // 2
TABLES = (*FOLDED_FROM_FACTS, *FOLDED_FROM_DELTAS)


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOON)


@pytest.fixture
def busy_world(
    postgres_url: str,
    clickhouse: ClickHouse,
    tmp_path: Path,
    clock: FixedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """A world in which three events have come, and more keep coming."""
    made = World(postgres_url, clickhouse, tmp_path, clock)
    monkeypatch.setattr(rollups_module, "QUIET_SECONDS", 2.0)
    made.facts.wipe()
    take_in(made, event(0, NOON), event(1, NOON), event(2, NOON))
    yield made
    made.close()


def event(number: int, occurred_at: int) -> dict[str, Any]:
    return {
        "event_id": str(uuid4()),  # tests share the log
        "event_type": "token_usage",
        "event_time": format_time(occurred_at),
        "tenant_id": "acme",
        "run_id": f"run-{number}",
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_input": 100,
    }


def take_in(world: World, *events: dict[str, Any]) -> None:
    """A step of the sink, and the step of the rollups that it wakes."""
    assert world.send(list(events)).accepted == len(events)
    while world.sink.step():
        pass
    world.rollups.step()


def counted(world: World) -> dict[str, int]:
    """Events by rollup."""
    found = {}
    for table in TABLES:
        rows = world.facts._store.query_rows(f"SELECT sum(events) AS n FROM tallystick.{table}")
        found[table] = int(rows[0]["n"])
    return found


def test_minutes_are_folded_at_once_and_the_rest_seldom(
    busy_world: World, clock: FixedClock
) -> None:
    assert counted(busy_world) == dict.fromkeys(TABLES, 3)
    clock.micros += SECOND
    take_in(busy_world, event(3, clock.micros))
    assert counted(busy_world) == {**dict.fromkeys(TABLES, 3), "rollup_minute": 4}
    clock.micros += RUNS_EVERY
    take_in(busy_world, event(4, clock.micros))
    expected = {**dict.fromkeys(TABLES, 3), "rollup_minute": 5, "runs": 5}
    assert counted(busy_world) == expected
    clock.micros += COARSE_EVERY
    take_in(busy_world, event(5, clock.micros))
    assert counted(busy_world) == dict.fromkeys(TABLES, 6)


def test_an_event_of_an_hour_that_is_over_does_not_wait_for_the_others(
    busy_world: World, clock: FixedClock
) -> None:
    clock.micros += RUNS_EVERY
    take_in(busy_world, event(3, clock.micros - HOUR))
    assert counted(busy_world) == {**dict.fromkeys(TABLES, 4), "rollup_user": 3}


def test_all_is_folded_when_nothing_more_comes(busy_world: World, clock: FixedClock) -> None:
    clock.micros += SECOND
    take_in(busy_world, event(3, clock.micros))
    assert not busy_world.rollups.step()
    clock.micros += 2 * SECOND
    assert busy_world.rollups.step()
    assert counted(busy_world) == dict.fromkeys(TABLES, 4)
    assert not busy_world.rollups.step()


def test_a_clock_that_stepped_back_keeps_no_rollup_waiting(
    busy_world: World, clock: FixedClock
) -> None:
    clock.micros -= HOUR
    take_in(busy_world, event(3, clock.micros))
    assert counted(busy_world) == dict.fromkeys(TABLES, 4)


def test_who_takes_over_in_between_folds_each_event_once(
    busy_world: World, clock: FixedClock
) -> None:
    for number in range(3, 9):
        clock.micros += RUNS_EVERY - 2 * SECOND
        take_in(busy_world, event(number, clock.micros - number % 2 * HOUR))
        busy_world.restart_followers()
    clock.micros += COARSE_EVERY
    busy_world.rollups.step()
    clock.micros += COARSE_EVERY
    while busy_world.rollups.step():
        pass
    assert counted(busy_world) == dict.fromkeys(TABLES, 9)
    assert busy_world.verifier.rollup_differences() == []


def test_many_facts_become_deltas_of_which_the_minutes_are_copied(
    busy_world: World, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few and many by turns, restarted in between: each event counts once everywhere."""
    for number in range(3, 11):
        monkeypatch.setattr(rollups_module, "_MANY", 1 if number % 3 else 1_000)
        clock.micros += SECOND
        take_in(busy_world, event(number, clock.micros), event(number, clock.micros))
        if number % 2:
            busy_world.restart_followers()
    assert counted(busy_world)["rollup_minute"] == counted(busy_world)["rollup_delta"] == 19
    clock.micros += COARSE_EVERY
    while busy_world.rollups.step():
        clock.micros += COARSE_EVERY
    assert counted(busy_world) == dict.fromkeys(TABLES, 19)
    assert busy_world.verifier.rollup_differences() == []


def test_a_fold_is_one_part_however_large(busy_world: World, clock: FixedClock) -> None:
    """INV-10: its first part would say of the whole that it has landed."""
    store = busy_world.facts._store
    store.command("SET min_insert_block_size_rows = 1, max_block_size = 1, max_threads = 1")
    events = [event(number, clock.micros) for number in range(100, 120)]
    assert busy_world.send(events).accepted == 20
    while busy_world.sink.step():
        pass
    store.command("SYSTEM STOP MERGES tallystick.runs")
    parts = "SELECT count() AS n FROM system.parts WHERE active AND table = 'runs'"
    before = int(store.query_rows(parts)[0]["n"])
    starts = busy_world.facts.query_watermarks("runs")
    ends = {one: found.offset for one, found in busy_world.positions.load("sink").items()}
    busy_world.facts.fold_facts("runs", starts, ends)
    after = int(store.query_rows(parts)[0]["n"])
    store.command("SYSTEM START MERGES tallystick.runs")
    store.command("SET min_insert_block_size_rows = DEFAULT, max_block_size = DEFAULT")
    assert after == before + 1


def test_events_of_any_number_of_months_land(busy_world: World) -> None:
    """A history that is imported must not stop the sink for everybody."""
    months = [event(number, number * 31 * 24 * HOUR) for number in range(110)]
    take_in(busy_world, *months)
    (row,) = busy_world.facts._store.query_rows(
        "SELECT uniqExact(toYYYYMM(occurred_at)) AS n FROM tallystick.facts"
    )
    assert int(row["n"]) >= 110
