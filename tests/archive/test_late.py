"""Late events that the index let through twice: one fact, however the steps fall."""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import pytest

from tallystick.archive import Archive
from tallystick.clock import DAY
from tallystick.events.batch import batch_of
from tallystick.events.model import Event
from tallystick.plumbing.log import Verdict
from tallystick.workers import sink as sink_module
from tallystick.workers.engine import wipe_derived
from tests.archive.scene import archive_all, make_archiver, restore, stored_facts
from tests.world import World

_tags = count(1)


def _originals(size: int, _: int) -> bytes:
    return bytes(size)


def append_twice(world: World, *, same_batch: bool, **more: Any) -> str:
    """Two deliveries of one late event, both judged ORIGINAL by an index that forgot."""
    now, name = world.clock.now(), f"late-{next(_tags)}"
    first = Event(
        event_id=name,
        event_type="token_usage",
        occurred_at=now - 30 * DAY,
        received_at=now,
        tenant_id="acme",
        run_id=f"run-{name}",
        provider="openai",
        model="gpt-4o",
        tokens_input=10,
        content_digest=b"1" * 16,
    )
    second = Event(**{**{one: getattr(first, one) for one in first.__struct_fields__}, **more})
    parts = [[first, second]] if same_batch else [[first], [second]]
    for events in parts:
        columns = batch_of(events).columns
        world.log.append(len(events), columns, now, partial(_originals, len(events)))
    return name


def outcome(world: World, name: str) -> tuple[int, list[str]]:
    """How many facts an event has, and what its other deliveries were."""
    query = world.facts._store.query_rows
    facts = query(f"SELECT log_offset FROM tallystick.facts WHERE event_id = '{name}'")
    others = query(f"SELECT kind FROM tallystick.deliveries WHERE event_id = '{name}'")
    return len(facts), [row["kind"] for row in others]


@pytest.mark.parametrize("same_batch", [True, False])
@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({}, Verdict.DUPLICATE),
        ({"content_digest": b"2" * 16}, Verdict.CONFLICT),
    ],
)
def test_two_deliveries_in_one_step_are_one_fact(
    world: World,
    archive: Archive,
    monkeypatch: pytest.MonkeyPatch,
    same_batch: bool,
    more: dict[str, Any],
    kind: Verdict,
) -> None:
    name = append_twice(world, same_batch=same_batch, **more)
    world.settle()
    before = stored_facts(world)
    assert outcome(world, name) == (1, [kind.name.lower()])
    for step in (1, 100_000):  # a replay of the log, in steps of one batch and in one step
        monkeypatch.setattr(sink_module, "EVENTS_PER_STEP_MAX", step)
        wipe_derived(world.positions, world.facts)
        world.restart_followers()
        world.settle()
        assert stored_facts(world) == before
    archive_all(make_archiver(world, archive))
    restore(world, archive)
    assert stored_facts(world) == before
    world.settle()
    assert world.verifier.violations() == []


def test_what_a_late_event_repeats_may_be_on_time_by_its_own_word(world: World) -> None:
    """The one before it says another time; the identity is the same."""
    name = append_twice(world, same_batch=True)
    now = world.clock.now()
    on_time = Event(
        event_id=f"{name}-x",
        event_type="token_usage",
        occurred_at=now,
        received_at=now,
        tenant_id="acme",
        run_id="r",
        content_digest=b"3" * 16,
    )
    late = Event(
        event_id=f"{name}-x",
        event_type="token_usage",
        occurred_at=now - 30 * DAY,
        received_at=now,
        tenant_id="acme",
        run_id="r",
        content_digest=b"4" * 16,
    )
    world.log.append(2, batch_of([on_time, late]).columns, now, lambda _: bytes(2))
    world.settle()
    assert outcome(world, f"{name}-x") == (1, ["conflict"])
