"""From events to a refusal: facts, the watch, the signal, the ladder, the guard, the causes."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

from tallystick.clock import MINUTE, SECOND, SystemClock, format_time
from tallystick.enforcement.alerts import Signal
from tallystick.enforcement.authorization import Ask
from tallystick.enforcement.overrun import OverrunResponse
from tallystick.enforcement.overrun.model import Policy, Rung, SeriesKey, Step
from tallystick.enforcement.overrun.reader import FactSeries
from tallystick.enforcement.overrun.store import OverrunStore
from tallystick.errors import Blocked
from tallystick.ids import Uuid7Source
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.units import USD, parse_amount
from tallystick.workers.overrun import OverrunWorker
from tests.world import World

QUIET_MINUTES = 60
LOOP_MINUTES = 3


class Heard:
    """Keeps what was told."""

    def __init__(self) -> None:
        self.open: dict[str, Signal] = {}

    def raise_signal(self, connection: psycopg.Connection[Any], signal: Signal) -> None:
        self.open[signal.signal_id] = signal

    def clear(self, connection: psycopg.Connection[Any], signal_id: str, at: int) -> None:
        self.open.pop(signal_id, None)


class Scene:
    """An hour of steady calls of two keys, then a loop of one of them."""

    def __init__(self, world: World, clickhouse: ClickHouse) -> None:
        self.world = world
        self.heard = Heard()
        ids = Uuid7Source(world.clock)
        self.response = OverrunResponse(world.pool, clickhouse, world.clock, ids, self.heard)
        reader = FactSeries(clickhouse, world.positions)
        self.worker = OverrunWorker(reader, world.pool, world.clock, ids, self.heard)
        self.loop_at = world.clock.now() // MINUTE * MINUTE - LOOP_MINUTES * MINUTE
        self.sent = 0

    def usage(self, at: int, key: str, **more: Any) -> dict[str, Any]:
        self.sent += 1
        return {
            "event_id": f"o-{self.sent}",
            "event_type": "token_usage",
            "event_time": format_time(at),
            "tenant_id": "acme",
            "run_id": f"run-{self.sent}",
            "provider": "openai",
            "model": "gpt-4o",
            "feature": "import" if key == "k1" else "chat",
            "user_id": "u1",
            "tokens_input": 20_000,
            "tokens_output": 1000,
            "attrs": {"tallystick_key": key},
            **more,
        }

    def send(self, start: int, end: int, per_minute: int, key: str) -> None:
        step = MINUTE // per_minute
        self.world.send([self.usage(at, key) for at in range(start, end, step)])


@pytest.fixture(scope="module")
def scene(world: World, clickhouse: ClickHouse) -> Scene:
    made = Scene(world, clickhouse)
    began = made.loop_at - QUIET_MINUTES * MINUTE
    for key in ("k1", "k2"):
        made.send(began, made.loop_at + LOOP_MINUTES * MINUTE, 2, key)
    world.settle()
    made.worker.step()
    return made


def test_from_a_loop_to_a_refusal(scene: Scene) -> None:
    response, world = scene.response, scene.world
    assert response.launches.overruns("acme", is_open=True, limit=10) == []
    policy = Policy(tenant_id="acme", dimension="key", steps=(Rung(step=Step.BLOCK),))
    response.mitigations.put_policy(policy, "admin")
    scene.send(scene.loop_at, scene.loop_at + LOOP_MINUTES * MINUTE, 120, "k1")
    world.settle()
    while scene.worker.step():
        pass
    opened = response.launches.overruns("acme", is_open=True, limit=10)
    assert [(one.dimension, one.value) for one in opened] == [("key", "k1")]
    signals = [one for one in scene.heard.open.values() if one.kind != "mitigation"]
    assert [one.who for one in signals] == ["key=k1"]
    assert "USD instead of" in signals[0].how_much
    assert "block" in signals[0].next_step
    assert opened[0].overrun_id in signals[0].how_to_stop

    response.guard.refresh()
    with pytest.raises(Blocked):
        asyncio.run(response.guard.check(_ask("k1")))
    asyncio.run(response.guard.check(_ask("k2")))
    _, taken = response.launches.overrun("acme", opened[0].overrun_id)
    assert [one.step for one in taken] == [Step.BLOCK]
    assert "acme" not in str(response.launches.overruns("globex", is_open=False, limit=10))

    response.mitigations.undo("acme", taken[0].mitigation_id, "the loop is mended", "admin")
    scene.worker.step()
    response.guard.refresh()
    asyncio.run(response.guard.check(_ask("k1")))  # undone by hand: not taken again


def test_what_drove_it_adds_up_to_what_the_stats_say(scene: Scene) -> None:
    overrun = scene.response.launches.overruns("acme", is_open=False, limit=1)[0]
    causes = scene.response.causes.of_overrun(overrun)
    assert causes is not None
    difference = parse_amount(causes["difference_usd"], USD)
    effects = {name: parse_amount(text, USD) for name, text in causes["effects"].items()}
    assert difference > 0
    assert sum(effects.values()) == difference
    assert max(effects, key=lambda name: effects[name]) == "volume"
    everything = scene.response.causes.compare(
        "acme", {}, (0, scene.loop_at), (scene.loop_at, scene.loop_at + LOOP_MINUTES * MINUTE)
    )
    total = parse_amount(everything["before_usd"], USD) + parse_amount(everything["after_usd"], USD)
    assert total == parse_amount(scene.world.totals("acme")["cost_usd"], USD)
    first = everything["contributions"]["key"][0]
    assert first["value"] in ("k1", "k2")
    for rows in everything["contributions"].values():
        moved = sum(parse_amount(row["difference_usd"], USD) for row in rows)
        assert moved == parse_amount(everything["difference_usd"], USD)


def test_a_new_process_knows_the_same_series_and_the_open_overruns(
    scene: Scene, clickhouse: ClickHouse
) -> None:
    world = scene.world
    reader = FactSeries(clickhouse, world.positions)
    fresh = OverrunWorker(reader, world.pool, world.clock, Uuid7Source(world.clock))
    fresh.step()
    old, new = scene.worker._watch, fresh._watch
    assert old is not None and new is not None
    assert [one.overrun_id for one in new.open_overruns()] == [
        one.overrun_id for one in old.open_overruns()
    ]
    key = SeriesKey("acme", "key", "k1")
    now = SystemClock().now() // MINUTE
    window = (now - 120, now + 1)
    assert new.book.series[key].window(*window) == old.book.series[key].window(*window)


def test_a_recovered_overrun_is_closed_and_its_signal_cleared(scene: Scene) -> None:
    watch = scene.worker._watch
    assert watch is not None
    overrun = watch.open_overruns()[0]
    said = watch.judge(overrun.last_at + 20 * MINUTE + SECOND, {overrun.key})
    with scene.world.pool.connection() as connection:
        scene.worker._write(connection, said, [], overrun.last_at + 20 * MINUTE)
    assert overrun.signal_id not in scene.heard.open
    with scene.world.pool.connection() as connection:
        assert OverrunStore().open_overruns(connection) == []


def _ask(key: str) -> Ask:
    return Ask(
        account_id="acme",
        tenant_id="acme",
        credit_units=1,
        attribution={"key": key},
        idempotency_key="k",
    )
