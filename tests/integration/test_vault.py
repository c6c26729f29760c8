"""The Policy Vault on real stores: the same nano-dollars as analytics, on its own way.

TALLYSTICK_KILL_ROUNDS sets how often a real vault is killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tallystick.clock import DAY
from tallystick.enforcement.vault import VaultStore
from tallystick.events.batch import batch_of
from tallystick.events.model import Event
from tallystick.plumbing.embedded.child import spawn
from tallystick.workers.options import EngineOptions
from tallystick.workers.roles import Roles
from tests.backfills import BackfillWorld
from tests.vault_world import (
    follow,
    follower_of,
    rebuilt,
    reconciled,
    require_agreement,
    spent,
)
from tests.world import World

ROUNDS = int(os.environ.get("TALLYSTICK_KILL_ROUNDS", "3"))
_tags = count()


def usage(world: World, tag: str, number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"{tag}-{number}",
        "event_type": "token_usage",
        "event_time": world.at(-number * 400),
        "tenant_id": tag,
        "run_id": f"{tag}-r{number % 7}",
        "user_id": f"u{number % 5}",
        "project_id": f"p{number % 3}",
        "team": "search",
        "feature": f"f{number % 2}",
        "provider": "openai",
        "model": ("gpt-4o", "gpt-4o-mini", "no-such-model")[number % 3],
        "tokens_input": 1000 + number,
        "tokens_output": 10 * number,
        **changes,
    }


def flat(world: World, tag: str, number: int) -> dict[str, Any]:
    return {
        "key": f"{tag}-flat-{number}",
        "timestamp": world.at(-number),
        "tenantId": tag,
        "userId": f"u{number % 5}",
        "projectId": "p0",
        "modelId": "gpt-4o",
        "operation": "chat",
        "currency": "USD",
        "amount": f"0.{number:09d}",
        "tokensIn": number,
        "tokensOut": 1,
        "version": 1,
    }


@pytest.fixture
def tag() -> str:
    return f"tenant{next(_tags)}"


def test_spent_is_what_analytics_says(world: World, tag: str) -> None:
    """Calls, flat costs, tools, ends, errors, aggregates, broken ones, repeats, conflicts."""
    events = [usage(world, tag, number) for number in range(60)]
    events += [flat(world, tag, number) for number in range(1, 30)]
    events += [
        usage(world, tag, 100, event_type="tool_call_finished", tool="s", error_code="boom"),
        usage(world, tag, 101, usage_scope="aggregate"),
        usage(world, tag, 102, event_type="run_completed"),
        usage(world, tag, 103, error_code="overloaded"),
        usage(world, tag, 104, tokens_input=-1),
    ]
    random.Random(3).shuffle(events)
    world.send(events)
    world.send([*events[:20], usage(world, tag, 1, tokens_input=9)])
    follow(follower_of(world))
    world.settle()
    require_agreement(world)
    totals, found = world.totals(tag), spent(world, tag)
    assert found["cost_usd"] == totals["cost_usd"] != "0"
    assert (found["requests"], found["errors"]) == (totals["calls"], totals["errors"]) == (90, 2)
    by_user = [spent(world, tag, user=f"u{number}")["requests"] for number in range(5)]
    assert sum(by_user) == 90
    assert spent(world, tag, user="u0", project="p0", team="search")["requests"] == 4
    assert spent(world, "another")["events"] == 0


@pytest.mark.parametrize("digest", [b"1" * 16, b"2" * 16])
@pytest.mark.parametrize("same_batch", [True, False])
def test_a_late_repeat_that_the_index_forgot_is_counted_once(
    world: World, tag: str, digest: bytes, same_batch: bool
) -> None:
    """As the sink judges it, but without its facts."""
    now = world.clock.now()
    first, second = (
        Event(
            event_id="late",
            event_type="token_usage",
            occurred_at=now - 30 * DAY,
            received_at=now,
            tenant_id=tag,
            run_id="r",
            provider="openai",
            model="gpt-4o",
            tokens_input=10,
            content_digest=one,
        )
        for one in (b"1" * 16, digest)
    )
    for events in [[first, second]] if same_batch else [[first], [second]]:
        columns = batch_of(events).columns
        judged = partial(lambda size, _: bytes(size), len(events))
        world.log.append(len(events), columns, now, judged)
    world.settle()
    follow(follower_of(world, events_per_step=1))
    assert spent(world, tag)["requests"] == 1
    require_agreement(world)


def test_backfills_move_the_vault_too(world: World, tag: str) -> None:
    backfills = BackfillWorld(world)
    priced = {"provider": "p", "model": "m"}
    world.send([usage(world, tag, number, **priced) for number in range(30)])
    world.settle()
    follower = follower_of(world)
    follow(follower)
    assert spent(world, tag)["cost_usd"] == "0"
    backfills.set_prices(tag, "3", "0.2")
    done = backfills.run(tag)
    follow(follower)
    after = spent(world, tag)
    assert after["cost_usd"] == world.totals(tag)["cost_usd"] != "0"
    assert after["requests"] == 30
    require_agreement(world)
    backfills.revert(done["backfill_id"])
    backfills.work()
    follow(follower)
    assert spent(world, tag)["cost_usd"] == "0"
    require_agreement(world)


def test_a_replay_gives_the_same_bytes_whatever_the_steps(world: World, tag: str) -> None:
    for part in range(8):
        world.send([usage(world, tag, part * 5 + number) for number in range(12)])
    follow(follower_of(world))
    before = VaultStore(world.pool).dump()
    assert before.count(b"\n") > 20
    for events_per_step in (1, 7, 100_000):
        assert rebuilt(world, events_per_step=events_per_step) == before


def test_two_vaults_at_once_count_once(world: World, tag: str) -> None:
    """The second finds the vault elsewhere, and reads again."""
    world.send([usage(world, tag, number) for number in range(10)])
    one, other = follower_of(world), follower_of(world)
    other._source.read(1)  # as if it had read, and then hung
    follow(one)
    other._source.rewind()
    follow(other)
    assert spent(world, tag)["events"] == 10


def test_it_goes_on_without_clickhouse(world: World, tag: str) -> None:
    """Facts are wiped, and the sink stands still; quotas do not notice."""
    world.settle()
    world.facts.wipe()
    world.positions.forget("sink")
    world.send([usage(world, tag, number) for number in range(10)])
    follow(follower_of(world))
    assert spent(world, tag)["events"] == 10
    report = reconciled(world)
    assert not report["agrees"] and not report["is_settled"]
    assert {one["kind"] for one in report["differences"]} == {"lag"}
    world.restart_followers()
    world.settle()
    require_agreement(world)


def test_the_role_runs_with_clickhouse_away(
    world: World, postgres_url: str, tmp_path: Path, tag: str
) -> None:
    world.send([usage(world, tag, number) for number in range(10)])
    away = "http://nobody:none@127.0.0.1:9/"
    options = EngineOptions(postgres_url, away, "", data=str(tmp_path))
    roles = Roles(options, world.clock)
    (loop,) = roles.vault()
    loop.start()
    try:
        deadline = time.monotonic() + 60
        while spent(world, tag)["events"] < 10 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert loop.failure is None
    finally:
        loop.stop()
        roles.close()
    assert spent(world, tag)["events"] == 10


def test_what_the_vault_lacks_is_a_mismatch(world: World, tag: str) -> None:
    world.send([usage(world, tag, 1)])
    follow(follower_of(world))
    world.settle()
    with world.pool.connection() as connection:
        connection.execute(
            "UPDATE enforcement.vault_spend SET usd_units = usd_units + 1 WHERE scope_key IN "
            "(SELECT scope_key FROM enforcement.vault_scope WHERE tenant_id = %s)",
            (tag,),
        )
    (found,) = reconciled(world)["differences"]
    assert (found["kind"], found["tenant_id"]) == ("mismatch", tag)
    assert found["vault"]["usd_units"] == found["analytics"]["usd_units"] + 1
    rebuilt(world)
    require_agreement(world)


def start(postgres_url: str, folder: Path, events_per_step: int) -> subprocess.Popen[bytes]:
    process = spawn(
        [sys.executable, "-m", "tests.vault_victim", postgres_url]
        + [str(folder), str(events_per_step)],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.slow
def test_killed_vaults_count_everything_once(
    world: World, postgres_url: str, tmp_path: Path, tag: str
) -> None:
    """Two real vaults at once, killed at random points; the state is that of one quiet replay."""
    rng = random.Random(os.environ.get("TALLYSTICK_KILL_SEED", "5"))
    store = VaultStore(world.pool)
    for number in range(ROUNDS):
        for part in range(30):
            world.send([usage(world, tag, number * 900 + part * 29 + one) for one in range(35)])
        steps = rng.choice([20, 100, 400])
        victims = [start(postgres_url, tmp_path / str(one), steps) for one in range(2)]
        time.sleep(rng.uniform(0.0, 0.4))
        for victim in victims:
            victim.kill()
            victim.communicate()
            assert victim.returncode == -signal.SIGKILL
    follow(follower_of(world))
    lived = store.dump()
    assert rebuilt(world) == lived
    world.settle()
    require_agreement(world)
