"""Restoring: what comes out of the archive is bit-equal to what the log gave."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tallystick.analytics.facts import CORRECTION_FIELDS
from tallystick.archive import Archive, ArchiveSource
from tallystick.clock import DAY
from tallystick.plumbing.log.columns import columns_of_rows
from tallystick.plumbing.objects import open_objects
from tallystick.workers.engine import wipe_derived
from tallystick.workers.restore import Restorer, RestoreThenFollow
from tests.archive.scene import archive_all, make_archiver, require_exact, restore, stored_facts
from tests.world import World


def messages(world: World, tag: str, count: int) -> list[dict[str, Any]]:
    """Every kind of event: priced, unpriced, aggregate, tools, attempts, costs, late, alone."""
    rng, made = random.Random(tag), []
    for number in range(count):
        kind = rng.choice(["usage"] * 5 + ["tool", "attempt", "cost", "end", "odd", "broken"])
        event: dict[str, Any] = {
            "event_id": f"{tag}-{number}",
            "event_time": world.at(-rng.randrange(600) - rng.choice([0, 0, 0, 9 * 86_400])),
            "tenant_id": rng.choice(["acme", "beta"]),
            "run_id": rng.choice(["", "r1", "r2", "r3"]),
            "user_id": f"u{number % 5}",
        }
        if kind == "usage":
            event |= {"event_type": "token_usage", "provider": "openai"}
            event |= {"model": rng.choice(["gpt-4o", "gpt-4.1", "mystery"])}
            event |= {"tokens_input": rng.randrange(2000, 9000), "tokens_output": rng.randrange(99)}
            event |= {"tokens_cache_read": rng.randrange(2000), "is_batch": rng.random() < 0.2}
            event |= {"usage_scope": rng.choice(["leaf", "leaf", "aggregate"])}
        elif kind == "tool":
            event |= {"event_type": "tool_call_finished", "tool": "search", "latency_ms": 12.25}
            event |= {"error_code": rng.choice(["", "timeout"])}
        elif kind == "attempt":
            event |= {"event_type": "attempt_finished", "latency_ms": rng.random() * 5000}
        elif kind == "cost":
            event |= {"event_type": "cost", "cost_amount": "0.0125", "cost_currency": "USD"}
            event = {**event, "amount": "0.0125", "currency": "USD"}
        elif kind == "end":
            event |= {"event_type": "run_completed"}
        elif kind == "odd":
            event |= {"event_type": "something.else", "attrs": {"a": 1, "b": "x"}}
        else:
            event |= {"event_type": "token_usage", "tokens_input": -5}
        made.append(event)
    repeats = [dict(rng.choice(made)) for _ in range(count // 10)]
    conflicts = [{**rng.choice(made), "user_id": "someone else"} for _ in range(count // 20)]
    return made + repeats + conflicts


def correct_some(world: World, count: int) -> None:
    """Corrections as a backfill appends them: the old row taken back, the new one put in."""
    facts = world.facts._store.query_rows(
        "SELECT * EXCEPT (content_digest, occurred_at, received_at), "
        "hex(content_digest) AS content_digest, "
        "toUnixTimestamp64Micro(occurred_at) AS occurred_at, "
        "toUnixTimestamp64Micro(received_at) AS received_at FROM tallystick.facts "
        f"WHERE event_type = 'token_usage' ORDER BY log_partition, log_offset LIMIT {count}"
    )
    rows = []
    for fact in facts:
        fact["content_digest"] = bytes.fromhex(fact["content_digest"])
        for sign, more in ((-1, 0), (1, 7)):
            new = {"sign": sign, "correction_id": "backfill-1"}
            new["cost_units"] = fact["cost_units"] + more
            rows.append([{**fact, **new}[name] for name in CORRECTION_FIELDS])
    if rows:
        now, columns = world.clock.now(), columns_of_rows(rows)
        world.corrections.append(len(rows), columns, now, lambda _: bytes(len(rows)))


@pytest.fixture(scope="module")
def lived(world: World) -> World:
    """A world with a past: all kinds of events, prices that changed, corrections."""
    for number in range(12):
        world.send(messages(world, f"past-{number}", 60))
        if number == 5:
            card = {"token_markup": "1.31", "face_value_usd": "0.011"}
            world.catalog.add_version(
                "credits",
                kind="credit",
                content=card,
                effective_at=world.clock.now() - DAY,
                source="test",
                clock=world.clock,
            )
        if number % 3 == 0:
            world.settle()
    world.settle()
    correct_some(world, 20)
    world.settle()
    return world


def test_facts_are_bit_equal_after_a_restore(lived: World, archive: Archive) -> None:
    archive_all(make_archiver(lived, archive, flush_rows=97))
    require_exact(lived, archive)
    before, digest, totals = stored_facts(lived), lived.facts.query_digest(), lived.totals("acme")
    assert len({row["event_type"] for row in before}) > 6
    assert any(row.get("correction_id") for row in before)
    assert {row["kind"] for row in before if "kind" in row} == {"duplicate", "conflict"}
    restore(lived, archive)
    assert stored_facts(lived) == before
    assert lived.facts.query_digest() == digest
    lived.settle()
    assert lived.totals("acme") == totals
    assert lived.verifier.violations() == []


def test_a_restore_goes_on_with_the_log(lived: World, tmp_path: Path) -> None:
    """Crashes in the middle, then events that the archive does not have yet."""
    archive = Archive(open_objects(str(tmp_path)))
    archive_all(make_archiver(lived, archive, flush_rows=97))
    lived.send(messages(lived, f"after-{tmp_path.name}", 50))
    lived.settle()
    before, totals = stored_facts(lived), lived.totals("beta")
    wipe_derived(lived.positions, lived.facts)
    for steps in (2, 3, 1000):
        lived.restart_followers()
        source = ArchiveSource(archive, lived.positions, "sink")
        restorer = Restorer(
            source, lived.positions, lived.facts, lived.catalog, lived.pool, lived.clock
        )
        follower = RestoreThenFollow(restorer, lived.sink)
        behind = lived.positions.load("sink")
        for _ in range(steps):
            if not follower.step():
                break
        if steps < 1000:  # the facts landed, the positions did not
            ends = {partition: behind[partition].offset for partition in behind} or {0: 0}
            lived.positions.commit("sink", ends, 0)
            restorer.close()
    assert stored_facts(lived) == before
    lived.settle()
    assert lived.totals("beta") == totals
    assert lived.verifier.violations() == []


def test_a_follower_of_rows_gets_the_same_facts(lived: World, tmp_path: Path) -> None:
    """The archive is a source like the log: the sink itself may read it."""
    archive = Archive(open_objects(str(tmp_path)))
    archive_all(make_archiver(lived, archive, flush_rows=97))
    before = stored_facts(lived)
    wipe_derived(lived.positions, lived.facts)
    lived.restart_followers()
    source = ArchiveSource(archive, lived.positions, "sink")
    lived.sink._source = source
    lived.settle()
    source.close()
    lived.restart_followers()
    assert stored_facts(lived) == before
