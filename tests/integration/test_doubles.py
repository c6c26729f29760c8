"""An event that came by two log partitions is counted once, by itself and on request."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tallystick.clock import DAY, Pace
from tallystick.events.model import EVENT_FIELDS
from tallystick.plumbing.log import PostgresLog, PostgresSource
from tallystick.plumbing.log.columns import expand
from tallystick.plumbing.log.model import decode_payload
from tallystick.workers import backfills as backfills_module
from tallystick.workers.sink import Sink
from tests.backfills import BackfillWorld
from tests.world import World

_RECEIVED = EVENT_FIELDS.index("received_at")
_TOKENS = EVENT_FIELDS.index("tokens_input")
_RUN = EVENT_FIELDS.index("run_id")


@pytest.fixture(scope="module")
def doubled(world: World, postgres_url: str) -> BackfillWorld:
    """A world whose usage has two partitions."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(b"INSERT INTO log.head (partition) VALUES (1)")
    logs = [world.log, PostgresLog(world.pool, 1), world.corrections]
    source = PostgresSource(logs, world.positions, "sink")
    world.sink = Sink(source, world.positions, world.facts, world.catalog, world.pool, world.clock)
    return BackfillWorld(world)


def send(world: World, tenant: str) -> None:
    common = {"tenant_id": tenant, "run_id": "r1", "event_time": world.at(-60), "user_id": "u"}
    world.send(
        [
            {**common, "event_id": "call", "event_type": "token_usage", "model": "gpt-4o",
             "provider": "openai", "tokens_input": 1000},
            {**common, "event_id": "tool", "event_type": "tool_call_finished", "tool": "search"},
            {**common, "event_id": "end", "event_type": "run_completed"},
        ]
    )  # fmt: skip


def send_again(
    world: World, *, later_micros: int, tokens: int | None = None, run: str | None = None
) -> None:
    """Append the last batch once more, by the other partition."""
    batch = world.log.read(world.log.head() - 1, batches_max=1)[0]
    columns, verdicts = decode_payload(batch.payload)
    received = expand(columns[_RECEIVED], batch.event_count)
    columns[_RECEIVED] = [at + later_micros for at in received]
    if tokens is not None:
        columns[_TOKENS] = [tokens]
    if run is not None:
        columns[_RUN] = [run]
    log = PostgresLog(world.pool, 1)
    log.append(batch.event_count, columns, batch.received_at, lambda _: verdicts)


def watch(doubled: BackfillWorld) -> None:
    """Let the next step look for doubles, and everything converge."""
    doubled.worker._doubles_at = 0
    doubled.work()


def postpone(doubled: BackfillWorld) -> None:
    """Look for no doubles by itself."""
    worker = doubled.worker
    worker._doubles_at = doubled.world.clock.now()
    worker._anywhere = Pace(doubled.world.clock, DAY)
    assert worker._anywhere.is_due()
    worker._anywhere.done()


@pytest.mark.parametrize("later_micros", [1_000, 0, -1_000])
def test_a_double_is_reversed_by_itself(doubled: BackfillWorld, later_micros: int) -> None:
    world, tenant = doubled.world, f"double{later_micros}"
    send(world, tenant)
    world.settle()
    watch(doubled)
    once = doubled.everything(tenant)
    send_again(world, later_micros=later_micros)
    world.settle()
    assert world.totals(tenant)["calls"] == 2
    assert [one.invariant_id for one in world.verifier.violations()] == ["INV-09"]
    watch(doubled)
    assert world.totals(tenant)["cost_usd"] == once["total"]["cost_usd"]
    assert _without_latency(doubled.everything(tenant)) == _without_latency(once)
    head = world.corrections.head()
    watch(doubled)
    assert world.corrections.head() == head


def _without_latency(found: dict[str, Any]) -> dict[str, Any]:
    total = {name: value for name, value in found["total"].items() if "latency" not in name}
    return {"total": total, "ledger": found["ledger"]}


def test_a_double_with_other_content_leaves_what_came_first(doubled: BackfillWorld) -> None:
    world, tenant = doubled.world, "conflict"
    send(world, tenant)
    world.settle()
    once = world.totals(tenant)
    send_again(world, later_micros=5, tokens=77)
    world.settle()
    watch(doubled)
    assert world.totals(tenant)["tokens_input"] == once["tokens_input"] == 1000
    assert world.runs.get("r1", tenant)["counts"]["events"] == 3
    assert world.verifier.violations() == []


def test_an_id_that_came_in_another_run_is_found_among_all_facts(doubled: BackfillWorld) -> None:
    """That is looked for apart: it reads the ids of every fact there is."""
    world, tenant = doubled.world, "elsewhere"
    postpone(doubled)
    send(world, tenant)
    world.settle()
    watch(doubled)
    send_again(world, later_micros=5, run="r2")
    world.settle()
    watch(doubled)
    assert world.totals(tenant)["calls"] == 2
    doubled.worker._anywhere = Pace(doubled.world.clock, DAY)
    watch(doubled)
    assert world.totals(tenant)["calls"] == 1
    assert world.runs.get("r1", tenant)["counts"]["events"] == 3
    assert world.verifier.violations() == []


def test_reconcile_names_and_repairs(doubled: BackfillWorld) -> None:
    world, tenant = doubled.world, "named"
    send(world, tenant)
    send_again(world, later_micros=5)
    world.settle()
    doubles = doubled.worker._doubles
    found = doubles.report()
    assert (found["agrees"], found["doubles"], found["reversed_rows"]) == (False, 3, 0)
    assert f"{tenant}/call" in found["examples"]
    assert doubles.report(is_repairing=True)["reversed_rows"] == 3
    assert doubles.report()["lagging"]
    world.settle()
    assert doubles.report()["agrees"]
    assert world.totals(tenant)["calls"] == 1
    assert world.verifier.violations() == []


def test_a_double_that_was_rated_again_is_still_counted_once(doubled: BackfillWorld) -> None:
    world, tenant = doubled.world, "rated"
    send(world, tenant)
    send_again(world, later_micros=5)
    world.settle()
    doubled.set_prices(tenant, "3", "2")
    postpone(doubled)  # the backfill comes first
    doubled.run(tenant)
    assert world.totals(tenant)["calls"] == 2
    watch(doubled)
    total = world.totals(tenant)
    assert (total["calls"], total["tokens_input"]) == (1, 1000)
    assert world.verifier.violations() == []


def test_doubles_are_searched_each_minute(doubled: BackfillWorld) -> None:
    doubled.worker._doubles_at = 0
    while doubled.worker.step():
        pass
    since = doubled.world.clock.now() - doubled.worker._doubles_at
    assert 0 <= since < backfills_module.DOUBLES_EVERY
