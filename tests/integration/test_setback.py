"""PostgreSQL restored to an earlier point, with indexes, facts and the archive as they were."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tallystick.archive import Archive, Manifest
from tallystick.clock import SystemClock
from tallystick.errors import InvariantBroken
from tallystick.events.dedup import DedupIndex
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.objects import open_objects
from tallystick.workers import setback
from tests.conftest import make_database
from tests.server import Server, event
from tests.world import World


@pytest.fixture
def worlds(
    postgres: EmbeddedPostgres, clickhouse: ClickHouse, tmp_path: Path
) -> Iterator[list[World]]:
    """One world, and room for the ones after it."""
    url = make_database(postgres, "t_setback")
    made = [World(url, clickhouse, tmp_path, SystemClock())]
    made[0].facts.wipe()
    yield made
    made[-1].close()


def call(world: World, number: int) -> dict[str, Any]:
    return event(event_id=f"e{number}", run_id=f"r{number}", event_time=world.at(-60))


def set_back(worlds: list[World], clickhouse: ClickHouse, head: int) -> World:
    """Stop; the log is as it was when it ended at `head`; start again."""
    world = worlds[-1]
    url = str(world.pool.conninfo)
    world.close()
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            "RESET ROLE",
            "ALTER TABLE log.batch DISABLE TRIGGER ALL",
            f"DELETE FROM log.batch WHERE partition = 0 AND offset_start >= {head}",
            f"UPDATE log.head SET next_offset = {head} WHERE partition = 0",
            f"UPDATE log.follower SET position = {head} WHERE position > {head}",
            "ALTER TABLE log.batch ENABLE TRIGGER ALL",
        ):
            connection.execute(statement.encode())
    worlds.append(World(url, clickhouse, world.folder, world.clock))
    return worlds[-1]


def test_an_index_beyond_the_log_is_made_anew_from_it(
    worlds: list[World], clickhouse: ClickHouse
) -> None:
    """What was lost is no duplicate when it is sent again; what was kept is one."""
    messages = [call(worlds[0], number) for number in range(3)]
    worlds[0].send(messages[:1])
    worlds[0].send(messages[1:])
    world = set_back(worlds, clickhouse, 1)
    assert world.index.position == 1
    assert world.send([call(world, 9)]).accepted == 1
    receipt = world.send(messages)
    assert (receipt.accepted, receipt.duplicates) == (2, 1)
    world.settle()
    assert world.totals("acme")["calls"] == 4
    assert world.verifier.violations() == []


def test_indexes_that_are_opened_late_are_looked_at_early(
    worlds: list[World], tmp_path: Path
) -> None:
    world = worlds[0]
    world.send([call(world, 0)])
    for name, position in (("dedup-calls", 7), ("vault-memory/0", 1)):
        index = DedupIndex(tmp_path / name, remembered_for=0)
        index.commit(position)
        index.close()
    setback.keep_indexes_within(tmp_path, world.log)
    for name, position in (("dedup-calls", 0), ("vault-memory/0", 1)):
        index = DedupIndex(tmp_path / name, remembered_for=0)
        assert index.position == position
        index.close()


def test_a_log_that_is_set_back_under_a_door_takes_nothing(worlds: list[World]) -> None:
    world = worlds[0]
    world.send([call(world, 0)])
    world.index.commit(5)  # as if the log had been there
    with pytest.raises(InvariantBroken, match="set back"):
        world.send([call(world, 1)])
    assert world.log.head() == 1


def test_facts_beyond_the_log_are_a_refusal(worlds: list[World], clickhouse: ClickHouse) -> None:
    world = worlds[0]
    world.send([call(world, 0)])
    world.send([call(world, 1), call(world, 2)])
    world.settle()
    logs = [world.log, world.corrections]
    setback.require_facts_within(logs, world.facts)
    world = set_back(worlds, clickhouse, 1)
    with pytest.raises(InvariantBroken, match="replay --restored"):
        setback.require_facts_within([world.log, world.corrections], world.facts)


def test_other_events_at_offsets_that_landed_stop_the_sink(
    worlds: list[World], clickhouse: ClickHouse
) -> None:
    """Nobody looked in time, and the log has grown past what had landed."""
    world = worlds[0]
    world.send([call(world, 0)])
    world.send([call(world, 1), call(world, 2)])
    world.settle()
    world = set_back(worlds, clickhouse, 1)
    world.send([call(world, number) for number in (9, 1, 2)])
    with pytest.raises(InvariantBroken, match="another event"):
        world.sink.step()


def test_an_archive_beyond_the_log_is_a_refusal(worlds: list[World], tmp_path: Path) -> None:
    world = worlds[0]
    world.send([call(world, 0)])
    archive = Archive(open_objects(str(tmp_path / "archive")))
    setback.require_archive_within([world.log], archive)
    archive.append(Manifest(1, 0, 0, 2, 2, [], [], "", "2026-11-21T00:00:00Z"))
    with pytest.raises(InvariantBroken, match="archives it up to 2"):
        setback.require_archive_within([world.log], archive)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tallystick.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_a_restored_postgresql_is_noticed_and_mended(data_folder: Path, tmp_path: Path) -> None:
    """A backup of the database alone; the start is refused until the facts are rebuilt."""
    server = Server(data_folder).start()
    kept = [event(event_id=f"kept-{number}", run_id=f"k{number}") for number in range(20)]
    lost = [event(event_id=f"lost-{number}", run_id=f"l{number}") for number in range(10)]
    server.client.post("/v1/events", json=kept).raise_for_status()
    server.wait_until_settled()
    assert server.stop() == 0
    shutil.copytree(data_folder / "postgres", tmp_path / "backup")
    server.start()
    server.client.post("/v1/events", json=lost).raise_for_status()
    server.wait_until_settled()
    assert server.stop() == 0
    shutil.rmtree(data_folder / "postgres")
    shutil.copytree(tmp_path / "backup", data_folder / "postgres")

    refused = command("serve", "--port", "0", "--data", str(data_folder))
    assert refused.returncode == 2
    assert "ends at 20" in refused.stderr and "archives it up to 30" in refused.stderr
    (data_folder / "archive").rename(tmp_path / "archive-of-before")
    refused = command("replay", "--data", str(data_folder))
    assert refused.returncode == 2
    assert "has facts of it up to 30" in refused.stderr and "replay --restored" in refused.stderr
    mended = command("replay", "--restored", "--data", str(data_folder))
    assert mended.returncode == 0, mended.stdout + mended.stderr

    server.start()
    server.wait_until_settled()
    (row,) = server.get("/v1/stats", tenant_id="acme")["rows"]
    assert row["calls"] == 20
    receipt = server.client.post("/v1/events", json=[*lost, kept[0]]).json()
    assert (receipt["accepted"], receipt["duplicates"]) == (10, 1)
    server.wait_until_settled()
    (row,) = server.get("/v1/stats", tenant_id="acme")["rows"]
    assert row["calls"] == 30
    assert server.client.post("/v1/reconciliations/ledger", json={}).json()["agrees"]
    assert server.stop() == 0
