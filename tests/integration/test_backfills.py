"""Backfills on real stores: what is rated again converges, once, and can be undone."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.workers.engine import wipe_derived
from tests.backfills import BackfillWorld
from tests.world import World


@pytest.fixture
def backfills(world: World) -> BackfillWorld:
    return BackfillWorld(world)


def usage(world: World, tenant: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "token_usage",
        "event_time": world.at(-number * 60),
        "tenant_id": tenant,
        "run_id": f"r{number % 4}",
        "attempt": 1 + number % 2,
        "user_id": f"u{number % 3}",
        "provider": "p",
        "model": "m",
        "tokens_input": 1000 + number,
        "tokens_output": 10,
    } | more


def send(world: World, tenant: str, count: int) -> int:
    """Usage, tool calls, a runtime, a stated cost; returns the tokens of calls."""
    messages = [usage(world, tenant, number) for number in range(count)]
    common = {"tenant_id": tenant, "run_id": "r1", "attempt": 2, "event_time": world.at(-5)}
    messages += [
        {**common, "event_id": "t", "event_type": "tool_call_finished", "tool": "search"},
        {**common, "event_id": "a", "event_type": "attempt_finished", "latency_ms": 1250.5},
        {
            **common,
            "event_id": "n",
            "event_type": "token_usage",
            "run_id": "",
            "tokens_input": 7,
            "model": "m",
            "provider": "p",
        },
        {**common, "event_id": "end", "event_type": "run_completed"},
    ]
    receipt = world.send(messages)
    assert receipt.accepted == len(messages), receipt
    return sum(one.get("tokens_input", 0) + one.get("tokens_output", 0) for one in messages)


def test_a_wrong_price_is_set_right_once_and_undone_to_the_unit(backfills: BackfillWorld) -> None:
    """Ledger, charge lines, stats by every interval and verify agree at each step."""
    world, tenant = backfills.world, "wrong-price"
    backfills.set_prices(tenant, "1", "1")
    tokens = send(world, tenant, 40)
    world.settle()
    before = backfills.everything(tenant)
    assert Decimal(before["total"]["cost_usd"]) == Decimal(tokens) / 10**6

    backfills.set_prices(tenant, "3", "2")
    world.settle()
    assert backfills.everything(tenant) == before  # a later version alone changes nothing
    done = backfills.run(tenant)
    after = backfills.everything(tenant)
    assert done["status"] == "done"
    assert Decimal(after["total"]["cost_usd"]) == 3 * Decimal(tokens) / 10**6
    assert after["total"]["calls"] == before["total"]["calls"]
    assert after["total"]["runs"] == before["total"]["runs"]
    total = done["report"]["total"]
    assert total["cost_usd"]["before"] == before["total"]["cost_usd"]
    assert total["cost_usd"]["after"] == after["total"]["cost_usd"]
    assert (total["events"], total["corrected"]) == (43, 43)
    assert done["report"]["affected_runs"] == 5

    again = backfills.run(tenant)
    assert again["report"]["total"]["corrected"] == 0
    assert backfills.everything(tenant) == after

    undo = backfills.revert(done["backfill_id"])
    backfills.work()
    assert backfills.everything(tenant) == before
    assert backfills.service.get(done["backfill_id"])["status"] == "reverted"
    undone = backfills.service.get(undo)["progress"]
    assert (undone["skipped"], undone["expected"], undone["examined"]) == (0, 43, 43)

    backfills.revert(undo)
    backfills.work()
    assert backfills.everything(tenant) == after
    assert backfills.service.get(done["backfill_id"])["status"] == "done"


def test_a_dry_run_reports_the_same_and_changes_nothing(backfills: BackfillWorld) -> None:
    world, tenant = backfills.world, "dry"
    backfills.set_prices(tenant, "1", "1")
    send(world, tenant, 12)
    world.settle()
    before, head = backfills.everything(tenant), world.corrections.head()
    backfills.set_prices(tenant, "2", "1")
    dry = backfills.run(tenant, is_dry_run=True)
    assert world.corrections.head() == head
    assert backfills.everything(tenant) == before
    real = backfills.run(tenant)
    assert real["report"] == dry["report"]
    with pytest.raises(Conflict, match="dry run"):
        backfills.revert(dry["backfill_id"])


def test_a_chosen_version_stands_for_its_card(backfills: BackfillWorld) -> None:
    """Rate with an older version than the one in force; models and range choose."""
    world, tenant = backfills.world, "chosen"
    backfills.set_prices(tenant, "1", "1")
    backfills.set_prices(tenant, "5", "1")
    send(world, tenant, 6)
    world.send([usage(world, tenant, 90, model="other")])
    world.settle()
    card = f"provider-prices-{tenant}"
    oldest = world.catalog.list_versions(card)[-1]["version_id"]
    before = Decimal(world.totals(tenant)["cost_usd"])
    done = backfills.run(tenant, rate_card_version=oldest, models=("m",))
    assert done["report"]["total"]["events"] == 7
    assert Decimal(world.totals(tenant)["cost_usd"]) == before / 5
    with pytest.raises(NotFound):
        backfills.ask(tenant, rate_card_version=10**6)
    one_minute = world.clock.now() - 150 * 1_000_000
    part = backfills.run(tenant, from_at=one_minute, models=("m",))
    assert 0 < part["report"]["total"]["events"] < 7
    assert backfills.everything(tenant)


def test_pieces_are_bounded_and_paced(backfills: BackfillWorld) -> None:
    world, tenant = backfills.world, "paced"
    backfills.set_prices(tenant, "1", "1")
    send(world, tenant, 25)
    world.settle()
    backfills.set_prices(tenant, "2", "1")
    backfill_id = backfills.ask(tenant, events_per_second_max=10)
    worker = backfills.worker
    while not backfills.service.get(backfill_id)["progress"]["pieces"]:
        worker.step()
    assert not worker.step()  # a second's worth was done
    assert backfills.service.get(backfill_id)["progress"]["examined"] == 10
    assert 0 < worker._rest <= 1_000_000
    worker._rest = 0
    assert not worker.step()  # the sink has yet to take the corrections in
    assert backfills.service.get(backfill_id)["progress"]["pieces"] == 1
    backfills.work()
    done = backfills.service.get(backfill_id)
    assert (done["progress"]["examined"], done["progress"]["pieces"]) == (28, 4)
    assert done["progress"]["expected"] == 28
    assert backfills.everything(tenant)


def test_pause_and_resume_and_refusals(backfills: BackfillWorld) -> None:
    world, tenant = backfills.world, "paused"
    backfills.set_prices(tenant, "1", "1")
    send(world, tenant, 25)
    world.settle()
    backfills.set_prices(tenant, "2", "1")
    service = backfills.service
    backfill_id = backfills.ask(tenant, events_per_second_max=10)
    with pytest.raises(Conflict, match="pause it first"):
        backfills.revert(backfill_id)
    while not service.get(backfill_id)["progress"]["pieces"]:
        backfills.worker.step()
    assert service.pause(backfill_id)["status"] == "paused"
    assert service.pause(backfill_id)["status"] == "paused"
    backfills.work()
    assert service.get(backfill_id)["progress"]["examined"] == 10
    assert service.resume(backfill_id)["status"] == "running"
    backfills.work()
    assert service.get(backfill_id)["status"] == "done"
    for verb in (service.pause, service.resume):
        with pytest.raises(Conflict):
            verb(backfill_id)
    backfills.revert(backfill_id)
    with pytest.raises(Conflict, match="is being reverted"):
        backfills.revert(backfill_id)
    backfills.work()
    with pytest.raises(NotFound):
        service.get("no-such")


def test_a_key_is_one_backfill(backfills: BackfillWorld) -> None:
    now = backfills.world.clock.now()
    first = backfills.ask("keyed", idempotency_key="k1", from_at=now - 5, to_at=now)
    assert backfills.ask("keyed", idempotency_key="k1", from_at=now - 5, to_at=now) == first
    with pytest.raises(Conflict, match="another backfill"):
        backfills.ask("keyed", idempotency_key="k1", from_at=now - 6, to_at=now)
    for wrong in (
        {"reason": " "},
        {"idempotency_key": ""},
        {"to_at": 1},
        {"events_per_second_max": 0},
        {"tenant_ids": ("",)},
        {"rate_card_version": -1},
    ):
        with pytest.raises(InvalidInput):
            backfills.ask("keyed", **wrong)


def test_a_revert_leaves_what_was_corrected_since(backfills: BackfillWorld) -> None:
    world, tenant = backfills.world, "stacked"
    backfills.set_prices(tenant, "1", "1")
    send(world, tenant, 8)
    world.settle()
    backfills.set_prices(tenant, "2", "2")
    first = backfills.run(tenant)
    backfills.set_prices(tenant, "4", "2")
    backfills.run(tenant, models=("m",))
    after = backfills.everything(tenant)
    undo = backfills.revert(first["backfill_id"])
    backfills.work()
    report = backfills.service.get(undo)
    assert report["progress"]["skipped"] == 9  # calls; the tool call and the runtime go back
    assert report["progress"]["corrected"] == 2
    found = backfills.everything(tenant)
    assert found["total"]["cost_usd"] == after["total"]["cost_usd"]


def test_a_second_worker_and_a_crash_correct_once(backfills: BackfillWorld) -> None:
    """Two workers decide the same piece; one of them dies between decision and append."""
    world, tenant = backfills.world, "raced"
    backfills.set_prices(tenant, "1", "1")
    tokens = send(world, tenant, 12)
    world.settle()
    backfills.set_prices(tenant, "2", "1")
    backfill_id = backfills.ask(tenant)
    backfills.worker.step()
    planned = backfills.worker._pieces.next_open()
    assert planned is not None and planned.backfill_id == backfill_id
    pieces, other = backfills.worker._pieces, backfills.new_worker()._pieces
    assert pieces.advance(planned) == 15
    assert other.advance(planned) is None  # the facts lag
    world.settle()
    assert other.advance(planned) == 0  # the piece was done
    backfills.work()
    assert Decimal(world.totals(tenant)["cost_usd"]) == 2 * Decimal(tokens) / 10**6
    assert backfills.everything(tenant)


def test_other_corrections_in_between_are_not_overlooked(backfills: BackfillWorld) -> None:
    """What was decided at one head is refused at another, and nothing of it stays."""
    world, tenant = backfills.world, "between"
    backfills.set_prices(tenant, "1", "1")
    send(world, tenant, 6)
    world.settle()
    backfills.set_prices(tenant, "2", "1")
    one, two = backfills.ask(tenant), backfills.ask(tenant)
    pieces = backfills.worker._pieces
    for _ in range(2):
        backfills.worker.step()
    first = pieces._backfills.load(one)
    head = pieces._corrections.settled_head()
    assert first.pieces == 1 and head is None  # its piece is appended, not landed
    pieces._backfills.begin(two, {0: world.log.head()}, world.clock.now())
    pieces._corrections.settled_head = lambda: 0  # type: ignore[method-assign]  # a stale answer
    assert pieces.advance(pieces._backfills.load(two)) == 0
    assert pieces._backfills.load(two).pieces == 0
    del pieces._corrections.settled_head
    backfills.work()
    assert backfills.service.get(two)["report"]["total"]["corrected"] == 0
    assert backfills.everything(tenant)


def test_the_story_of_a_run_shows_what_counts_now(backfills: BackfillWorld) -> None:
    world, tenant = backfills.world, "story"
    backfills.set_prices(tenant, "1", "1")
    send(world, tenant, 8)
    world.settle()
    before = world.runs.get("r1", tenant)
    backfills.set_prices(tenant, "3", "1")
    done = backfills.run(tenant)
    after = world.runs.get("r1", tenant)
    assert after["counts"] == before["counts"]
    assert [one["event_id"] for one in after["timeline"]] == [
        one["event_id"] for one in before["timeline"]
    ]
    assert [one["log_offset"] for one in after["timeline"]] == [
        one["log_offset"] for one in before["timeline"]
    ]
    assert Decimal(after["cost_usd"]) == 3 * Decimal(before["cost_usd"])
    attempts = sum(Decimal(one["cost_usd"]) for one in after["attempts"])
    assert attempts == Decimal(after["cost_usd"])
    corrected = {one.get("corrected_by") for one in after["timeline"]}
    assert corrected == {done["backfill_id"], None}


def test_a_wipe_rebuilds_corrected_facts(backfills: BackfillWorld) -> None:
    """Corrections are in a log: replay gives the same, and a repeat corrects nothing."""
    world, tenant = backfills.world, "rebuilt"
    backfills.set_prices(tenant, "1", "1")
    send(world, tenant, 8)
    world.settle()
    backfills.set_prices(tenant, "3", "1")
    backfills.run(tenant)
    before = backfills.everything(tenant)
    wipe_derived(world.positions, world.facts)
    world.restart_followers()
    backfill_id = backfills.ask(tenant)
    for _ in range(3):
        backfills.worker.step()
    assert backfills.service.get(backfill_id)["progress"]["pieces"] == 0  # it waits
    backfills.work()
    assert backfills.service.get(backfill_id)["progress"]["corrected"] == 0
    assert backfills.everything(tenant) == before
