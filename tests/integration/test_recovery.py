"""Recovery of the followers and the door, step by step on real stores."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import psycopg
import pytest

from tallystick.analytics.stats import DIMENSIONS, INTERVALS, StatsQuery
from tallystick.clock import DAY, HOUR, MINUTE
from tallystick.errors import SlowDown, TallystickError
from tallystick.events import door as door_module
from tallystick.plumbing import postgres
from tallystick.workers.engine import wipe_derived
from tests.world import World


def usage(world: World, tenant: str, number: int) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "token_usage",
        "event_time": world.at(-number),
        "tenant_id": tenant,
        "run_id": f"r{number % 5}",
        "model": "gpt-4o",
        "provider": "openai",
        "tokens_input": 10,
    }


def test_a_position_that_was_lost_doubles_nothing(world: World) -> None:
    """INV-10: facts landed, the position did not; over many steps, not only the next one."""
    for number in range(150):  # more batches than one step takes
        world.send([usage(world, "lost", number)])
    world.settle()
    before = world.totals("lost")
    world.positions.commit("sink", {0: 0}, world.clock.now())
    world.restart_followers()
    world.settle()
    assert world.totals("lost") == before
    assert before["calls"] == 150
    assert world.verifier.violations() == []


def test_a_wipe_that_was_interrupted_is_finished_by_the_next_start(world: World) -> None:
    world.send([usage(world, "wiped", number) for number in range(40)])
    world.settle()
    before = world.totals("wiped")
    world.positions.commit("sink", {0: 0}, world.clock.now())
    world.facts._store.command("TRUNCATE TABLE tallystick.facts")  # and then the power went
    world.restart_followers()
    world.settle()
    assert world.totals("wiped") == before
    wipe_derived(world.positions, world.facts)
    world.restart_followers()
    world.settle()
    assert world.totals("wiped") == before
    assert world.verifier.violations() == []


def test_the_index_is_rebuilt_from_the_log(world: World) -> None:
    message = usage(world, "index", 1)
    assert world.send([message]).accepted == 1
    world.index.position = 0  # as if its last writes were lost
    assert world.send([message]).duplicates == 1


def test_a_full_queue_pushes_back_and_loses_nothing(
    world: World, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is held by a lock of ours, so that appends wait."""
    bodies = [json.dumps([usage(world, "full", number)]).encode() for number in range(5)]
    monkeypatch.setattr(door_module, "BYTES_WAITING_MAX", sum(map(len, bodies[:3])))

    async def send_all() -> list[Any]:
        def accept(body: bytes) -> Any:
            return world.door.accept(
                body, content_type="application/json", content_encoding="", headers={}
            )

        with psycopg.connect(postgres_url) as connection:
            connection.execute(b"SELECT * FROM log.head FOR UPDATE")
            waiting = [asyncio.ensure_future(accept(body)) for body in bodies]
            await asyncio.sleep(0.3)
        return await asyncio.gather(*waiting, return_exceptions=True)

    answers = asyncio.run(send_all())
    assert [getattr(answer, "accepted", None) for answer in answers[:3]] == [1, 1, 1]
    assert all(isinstance(answer, SlowDown) for answer in answers[3:])
    world.settle()
    assert world.totals("full")["calls"] == 3


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_dimension_and_interval_sums_to_the_same(world: World, dimension: str) -> None:
    if not world.totals("dims")["calls"]:
        world.send([usage(world, "dims", number) for number in range(30)])
        world.settle()
    total = world.totals("dims")
    for interval in INTERVALS:
        now = world.clock.now() // MINUTE * MINUTE
        rows = world.stats.query(
            StatsQuery(now - 30 * DAY, now + HOUR, interval, (dimension,), {"tenant": "dims"})
        )
        assert sum(row["calls"] for row in rows) == total["calls"] == 30
        assert all(dimension in row for row in rows)


def test_a_migration_that_changed_stops_the_start(postgres_url: str) -> None:
    assert postgres.migrate_postgres(postgres_url) == []
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        name = "0001_log.sql"
        digest = "SELECT digest FROM public.schema_migration WHERE name = %s"
        kept = connection.execute(digest.encode(), (name,)).fetchone()
        change = b"UPDATE public.schema_migration SET digest = %s WHERE name = %s"
        connection.execute(change, ("other", name))
        with pytest.raises(TallystickError, match=name):
            postgres.migrate_postgres(postgres_url)
        assert kept is not None
        connection.execute(change, (kept[0], name))
