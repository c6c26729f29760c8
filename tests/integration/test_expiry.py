"""Facts expire by months, and no charge with them: whatever comes afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tallystick.analytics.corrections import Signed
from tallystick.analytics.stats import StatsQuery
from tallystick.broken.facts import BrokenFacts, BrokenFilter
from tallystick.clock import DAY, HOUR, MINUTE
from tallystick.enforcement.vault import VaultStore
from tallystick.errors import InvalidInput, InvariantBroken, LeaseLost, Raced
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log import PostgresLog
from tallystick.plumbing.log.heads import PostgresHeads
from tallystick.plumbing.postgres import open_pool, transaction
from tallystick.reconcile.freshness import Freshness
from tallystick.reconcile.quotas import QuotaReconciler
from tallystick.workers.engine import wipe_derived
from tallystick.workers.setback import require_facts_within
from tests.backfills import BackfillWorld
from tests.conftest import make_database
from tests.expiry import ExpiryWorld, expiring, month, tool_call
from tests.world import World

UNITS = 50_000
EACH = 100 * 10**6
"""Of a million tokens at a dollar."""

MAY, JUNE, JULY = month(2026, 5), month(2026, 6), month(2026, 7)
NOW = month(2026, 9) + 10 * DAY
"""Ninety days before it is in June: what is of before June expires."""


@pytest.fixture
def expiry(
    postgres: EmbeddedPostgres,
    clickhouse: ClickHouse,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[ExpiryWorld]:
    url = make_database(postgres, "x_" + request.node.name.lower()[-50:].strip("]"))
    with expiring(url, clickhouse, tmp_path, NOW) as made:
        yield made


def send(expiry: ExpiryWorld, tenant: str) -> None:
    """A run in May, one from May to June, one in July, and usage of no run in May."""
    accepted = expiry.world.send(
        [
            tool_call(tenant, "old", MAY + DAY, "may"),
            tool_call(tenant, "spanning-1", JUNE - HOUR, "spanning"),
            tool_call(tenant, "spanning-2", JUNE + HOUR, "spanning"),
            tool_call(tenant, "july", JULY + DAY, "july"),
            tool_call(tenant, "no-run", MAY + DAY, ""),
        ]
    ).accepted
    assert accepted == 5
    expiry.world.settle()


def by_day(world: World, tenant: str) -> list[dict[str, Any]]:
    query = StatsQuery(MAY - 30 * DAY, NOW + 30 * DAY, "day", ("tool",), {"tenant": tenant})
    return world.stats.query(query)


def report(expiry: ExpiryWorld) -> dict[str, Any]:
    world = expiry.world
    heads = PostgresHeads([world.log, world.corrections])
    return Freshness(world.pool, heads, world.facts, world.clock).report()


def test_months_go_and_charges_rollups_and_runs_stay(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "stay"
    send(expiry, tenant)
    before = by_day(world, tenant), expiry.charged(tenant), expiry.lines(tenant)
    assert expiry.expire() == JUNE
    assert (expiry.count(), expiry.count("occurred_at < '2026-06-01'")) == (2, 0)
    assert (by_day(world, tenant), expiry.charged(tenant), expiry.lines(tenant)) == before
    found = report(expiry)
    assert (found["facts"], found["difference"]) == (5, 0)
    assert world.verifier.violations() == []
    assert not expiry.worker.step()


def test_a_late_event_of_a_spanning_run_is_charged_and_nothing_is_refunded(
    expiry: ExpiryWorld,
) -> None:
    world, tenant = expiry.world, "spanning"
    send(expiry, tenant)
    expiry.expire()
    world.send([tool_call(tenant, f"late-{run}", JULY + HOUR, run) for run in ("spanning", "may")])
    world.settle()
    charged = expiry.charged(tenant)
    assert (charged["spanning"], charged["may"], charged["july"]) == (3 * UNITS, 2 * UNITS, UNITS)
    assert expiry.lines(tenant) == charged
    assert expiry.refunds() == 0
    assert world.verifier.violations() == []


def test_what_a_run_did_before_the_horizon_still_decides_what_is_charged_since(
    expiry: ExpiryWorld,
) -> None:
    """Its last attempt, its failure, and which version of the card it began under."""
    world, tenant = expiry.world, "decides"
    for effective_at, content in (
        (0, {"failed_runs": "free"}),
        (JUNE, {"failed_runs": "charge", "attempts": "all"}),
    ):
        world.catalog.add_version(
            "credits-decides",
            kind="credit",
            tenant_id=tenant,
            content=content,
            effective_at=effective_at,
            source="test",
            clock=world.clock,
        )
    end: dict[str, Any] = {"event_type": "run_failed", "tool": ""}
    world.send(
        [
            tool_call(tenant, "r1", MAY, "retried", attempt=2),
            tool_call(tenant, "r2", JULY, "retried", attempt=1),
            tool_call(tenant, "f1", MAY, "failed", **end),
            tool_call(tenant, "f2", JULY, "failed"),
        ]
    )
    world.settle()
    assert expiry.charged(tenant) == {"retried": UNITS}
    expiry.expire()
    world.send([tool_call(tenant, f"late-{run}", JULY, run) for run in ("retried", "failed")])
    world.settle()
    assert expiry.charged(tenant) == expiry.lines(tenant) == {"retried": UNITS}
    assert world.verifier.violations() == []


def test_an_event_of_before_the_horizon_is_refused_and_kept_as_broken(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "years"
    send(expiry, tenant)
    assert expiry.look()  # recorded: in an hour it closes
    assert world.send([tool_call(tenant, "in-time", JUNE - 1, "may")]).accepted == 1
    expiry.clock.micros += HOUR + MINUTE
    good = tool_call(tenant, "good", JUNE, "may")
    receipt = world.send([good, tool_call(tenant, "too-late", JUNE - 1, "may")])
    assert receipt.accepted == 1
    assert [(one.event_id, one.code) for one in receipt.rejected] == [("too-late", "time_expired")]
    assert "before 2026-06-01T00:00:00" in receipt.rejected[0].reason
    world.settle()
    broken, _ = BrokenFacts(expiry.store).query_page(BrokenFilter(tenant), None, 10)
    assert [one.code for one in broken] == ["time_expired"]
    expiry.expire()
    assert expiry.charged(tenant)["may"] == 3 * UNITS
    assert report(expiry)["difference"] == 0
    assert world.verifier.violations() == []


def test_nothing_goes_before_what_it_charges_is_charged(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "first"
    world.send([tool_call(tenant, "e", MAY, "r")])
    while world.sink.step() or world.rollups.step():
        pass
    for _ in range(6):
        expiry.look()
    assert expiry.kept_from() == 0
    world.charger.step()  # though it was not quiet: its charge is asked for
    assert expiry.charged(tenant) == {"r": UNITS}
    assert expiry.expire() == JUNE
    assert expiry.charged(tenant) == {"r": UNITS}


def test_nothing_goes_before_it_has_landed_and_is_in_the_rollups(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "landed"
    world.send([tool_call(tenant, "e", MAY, "r")])
    for _ in range(4):
        expiry.look()
    assert expiry.kept_from() == 0
    while world.sink.step():
        pass
    world.charger.step()
    for _ in range(4):
        expiry.look()
    assert expiry.kept_from() == 0, "rollups lack it"
    assert expiry.expire() == JUNE
    assert expiry.count() == 0
    assert world.totals(tenant)["tool_calls"] == 1


def test_a_crash_at_any_stage_is_repeated_and_two_workers_do_it_once(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "crash"
    send(expiry, tenant)
    before = expiry.charged(tenant)
    stages = 0
    for _ in range(12):
        world.settle()
        stages += expiry.look(expiry.new_worker())
        expiry.look(expiry.new_worker())  # a second one, of another process
        world.restart_followers()
        world.send([tool_call(tenant, f"late-{stages}-{_}", JULY, "spanning")])
        before["spanning"] += UNITS
        world.settle()
        assert expiry.charged(tenant) == expiry.lines(tenant) == before
        assert report(expiry)["difference"] == 0
        assert world.verifier.violations() == []
    assert (expiry.kept_from(), expiry.count("occurred_at < '2026-06-01'")) == (JUNE, 0)
    assert len(expiry.horizons.load()) == 1


def test_announced_twice_says_the_same(expiry: ExpiryWorld) -> None:
    send(expiry, "twice")
    expiry.facts.announce(JUNE, expiry.clock.now())
    first = expiry.facts.query_expired()
    expiry.facts.announce(JUNE, expiry.clock.now())
    assert expiry.facts.query_expired() == first == {0: 3}
    assert report(expiry)["facts"] == 5


def test_the_horizon_never_goes_back(expiry: ExpiryWorld) -> None:
    send(expiry, "back")
    assert expiry.expire() == JUNE
    assert not expiry.look(expiry.new_worker(days=0))
    assert not expiry.look(expiry.new_worker(days=800))
    expiry.clock.micros -= 200 * DAY
    assert not expiry.look(expiry.new_worker())
    expiry.clock.micros += 200 * DAY
    assert (expiry.kept_from(), expiry.horizons.load()[-1].horizon_at) == (JUNE, JUNE)
    expiry.facts.announce(MAY, expiry.clock.now())
    assert expiry.kept_from() == JUNE
    for statement in (
        f"INSERT INTO log.horizon (horizon_at, closes_at) VALUES ({MAY}, 0)",
        f"INSERT INTO log.horizon (horizon_at, closes_at) VALUES ({JUNE + DAY}, 0)",
        f"UPDATE log.horizon SET horizon_at = {JULY}",
        "UPDATE log.horizon SET closes_at = 0",
        "UPDATE log.horizon SET ends = '{}'",
        "DELETE FROM log.horizon",
        "TRUNCATE log.horizon",
    ):
        with expiry.world.pool.connection() as connection:
            connection.execute("RESET ROLE")
            with pytest.raises(psycopg.errors.IntegrityError):
                connection.execute(statement.encode())
            connection.rollback()


def test_a_setting_that_is_raised_in_between_keeps_what_is_not_gone(expiry: ExpiryWorld) -> None:
    send(expiry, "raised")
    assert expiry.look()  # recorded, not announced
    assert not any(expiry.look(expiry.new_worker(800)) for _ in range(6))
    assert expiry.kept_from() == 0
    while not expiry.kept_from():
        expiry.look()
    for days in (0, 800):
        worker = expiry.new_worker(days)
        assert not any(expiry.look(worker) for _ in range(4))
    assert expiry.count() == 5
    assert expiry.expire() == JUNE
    assert expiry.count() == 2


def test_later_months_follow(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "follow"
    send(expiry, tenant)
    expiry.expire()
    before = expiry.charged(tenant)
    expiry.clock.micros = NOW + 31 * DAY
    assert expiry.expire() == JULY
    assert expiry.count() == 1
    world.send([tool_call(tenant, "late", JULY, "spanning")])
    world.settle()
    assert expiry.charged(tenant) == before | {"spanning": 3 * UNITS}
    assert (report(expiry)["difference"], expiry.refunds()) == (0, 0)
    assert world.verifier.violations() == []


def test_a_rebuild_from_the_log_lands_what_expired_and_charges_nothing(
    expiry: ExpiryWorld,
) -> None:
    world, tenant = expiry.world, "replay"
    send(expiry, tenant)
    expiry.expire()
    before = expiry.charged(tenant)
    del before["july"]
    calls = [row["tool_calls"] for row in by_day(world, tenant)]
    world.catalog.add_version(  # from now on all of it would be free
        "credits-replay",
        kind="credit",
        tenant_id=tenant,
        content={"late_events": "free"},
        effective_at=0,
        source="test",
        clock=world.clock,
    )
    wipe_derived(world.positions, world.facts)
    world.restart_followers()
    while world.sink.step():
        pass
    assert not expiry.look(), "rollups have yet to take it in"
    world.settle()
    assert (expiry.count(), expiry.kept_from()) == (5, JUNE)
    assert world.verifier.violations() == []
    assert expiry.expire() == JUNE
    assert expiry.count() == 2
    charged = expiry.charged(tenant)
    assert charged == {**before, "spanning": UNITS}, "free since the horizon alone"
    assert expiry.lines(tenant) == charged
    assert [row["tool_calls"] for row in by_day(world, tenant)] == calls
    assert report(expiry)["difference"] == 0
    assert world.verifier.violations() == []


def test_a_lost_clickhouse_is_made_anew_from_the_log(expiry: ExpiryWorld) -> None:
    """It knows no horizon then: all facts are there again, and charge what they did."""
    world, tenant = expiry.world, "lost"
    send(expiry, tenant)
    expiry.expire()
    before = expiry.charged(tenant)
    expiry.store.command("TRUNCATE TABLE tallystick.horizon")
    wipe_derived(world.positions, world.facts)
    world.restart_followers()
    world.settle()
    assert (expiry.charged(tenant), expiry.lines(tenant)) == (before, before)
    assert expiry.expire() == JUNE
    assert (expiry.charged(tenant), expiry.refunds()) == (before, 0)
    assert world.verifier.violations() == []


def test_nothing_becomes_final_by_the_word_of_a_clickhouse_that_lost_some(
    expiry: ExpiryWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world, tenant = expiry.world, "some"
    send(expiry, tenant)
    before = expiry.charged(tenant)
    expiry.expire()
    expiry.store.command("TRUNCATE TABLE tallystick.horizon")
    world.facts.wipe()  # and nobody noticed: followers go on where they were
    world.restart_followers()
    world.send([tool_call(tenant, "more", JULY, "more")])
    assert expiry.expire() == 0
    assert "partition: how many): {0: 5}" in caplog.text
    wipe_derived(world.positions, world.facts)
    world.restart_followers()
    assert expiry.expire() == JUNE
    assert expiry.charged(tenant) == {**before, "more": UNITS}
    assert expiry.refunds() == 0


def test_a_restored_postgresql_learns_the_horizon_again(expiry: ExpiryWorld) -> None:
    send(expiry, "restored")
    expiry.facts.announce(JUNE, expiry.clock.now())
    assert expiry.look()
    assert [one.horizon_at for one in expiry.horizons.load()] == [JUNE]
    assert expiry.expire() == JUNE
    assert expiry.count() == 2


def test_an_idle_system_whose_facts_have_all_expired_starts(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "idle"
    world.send([tool_call(tenant, "e", MAY, "r")])
    expiry.expire()
    assert expiry.count() == 0
    require_facts_within([world.log, world.corrections], world.facts)
    world.restart_followers()
    world.send([tool_call(tenant, "more", JULY, "r")])
    world.settle()
    assert expiry.charged(tenant) == {"r": 2 * UNITS}
    assert world.verifier.violations() == []


def test_a_log_that_was_set_back_is_noticed_when_all_its_facts_have_expired(
    expiry: ExpiryWorld, postgres: EmbeddedPostgres
) -> None:
    expiry.world.send([tool_call("set-back", "e", MAY, "r")])
    expiry.expire()
    pool = open_pool(make_database(postgres, "expiry_set_back"), connections_max=2)
    with pytest.raises(InvariantBroken, match="ends at 0, but ClickHouse has facts of it up to 1"):
        require_facts_within([PostgresLog(pool)], expiry.world.facts)
    pool.close()


def test_a_charge_line_of_another_horizon_is_not_posted(expiry: ExpiryWorld) -> None:
    """A charger that hung while the horizon moved has planned with facts that are gone."""
    world, tenant = expiry.world, "hung"
    send(expiry, tenant)
    lines = expiry.lines(tenant)
    plan = world.charger._plan([(tenant, "may"), (tenant, "spanning")])
    expiry.expire()
    with pytest.raises(LeaseLost):
        world.facts.post_lines(
            list(plan.targets), plan.lines, expiry.clock.now(), horizon=plan.horizon
        )
    assert expiry.lines(tenant) == lines


def test_the_charger_reads_again_when_the_horizon_moved_meanwhile(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "moved"
    send(expiry, tenant)
    charged = expiry.charged(tenant)
    expiry.expire()  # the charger still knows none
    world.charger._horizon = 0
    assert world.charger.converge([(tenant, run) for run in charged]) == {}
    assert (expiry.charged(tenant), expiry.lines(tenant)) == (charged, charged)
    assert expiry.refunds() == 0


def test_backfills_reach_back_to_the_horizon(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "backfill"
    backfills = BackfillWorld(world)
    backfills.set_prices(tenant, "1", "1")
    usage: dict[str, Any] = {"event_type": "token_usage", "provider": "p", "model": "m"}
    usage |= {"tool": "", "tokens_input": 10**6}
    for name, at in (("old", MAY), ("new", JULY)):
        world.send([tool_call(tenant, name, at, "r", **usage)])
    world.settle()
    assert expiry.charged(tenant) == {"r": 2 * EACH}
    whole = {"from_at": MAY, "to_at": NOW}
    backfills.set_prices(tenant, "1", "2")
    open_one = backfills.ask(tenant, **whole)
    assert expiry.look()
    for asked in (whole, {"from_at": JUNE - 1}):
        with pytest.raises(InvalidInput, match="of before 2026-06-01T00:00:00") as refused:
            backfills.ask(tenant, **asked)
        assert refused.value.code == "facts_expired"
    while expiry.horizons.load()[-1].ends is None:
        expiry.look()
    for _ in range(6):  # it goes on, without what expires
        backfills.worker._rest = 0
        backfills.worker.step()
        world.settle()
    assert expiry.kept_from() == 0
    found = backfills.service.get(open_one)
    assert (found["status"], found["report"]["total"]["corrected"]) == ("done", 1)
    assert expiry.charged(tenant) == expiry.lines(tenant) == {"r": 3 * EACH}
    expiry.expire()
    with pytest.raises(InvalidInput, match="make a backfill from then on instead"):
        backfills.revert(open_one)
    backfills.set_prices(tenant, "1", "3")
    backfills.run(tenant, from_at=JUNE)
    assert expiry.charged(tenant) == {"r": 4 * EACH}
    assert world.verifier.violations() == []


def test_a_correction_of_what_is_about_to_expire_is_not_appended(expiry: ExpiryWorld) -> None:
    """A piece that was decided before the ends were noted is decided again, without it."""
    world, tenant = expiry.world, "about"
    backfills = BackfillWorld(world)
    send(expiry, tenant)
    expiry.look()
    while expiry.horizons.load()[-1].ends is None:
        expiry.look()
    corrections = backfills.worker._pieces._corrections
    current = corrections.query_current("tenant_id = {t:String}", {"t": tenant})
    head = corrections.settled_head()
    assert head is not None
    rows = [Signed(1, "x", one.content) for one in current]
    with pytest.raises(Raced, match="about to expire"), transaction(world.pool) as connection:
        corrections.append(connection, rows, head, expiry.clock.now())
    assert corrections.corrected_from() == JUNE
    assert world.corrections.head() == head


def test_stats_say_what_they_still_answer(expiry: ExpiryWorld) -> None:
    world, tenant = expiry.world, "stats"
    send(expiry, tenant)
    expiry.expire()
    asked = {"group_by": ("user", "team"), "filters": {"tenant": tenant}}
    with pytest.raises(InvalidInput, match="in whole days by user") as refused:
        world.stats.query(StatsQuery(MAY, NOW, **asked))  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.http_status) == ("facts_expired", 400)
    (row,) = world.stats.query(StatsQuery(JUNE, NOW, **asked))  # type: ignore[arg-type]
    assert row["tool_calls"] == 2
    whole = StatsQuery(MAY, NOW // DAY * DAY, group_by=("user",), filters={"tenant": tenant})
    assert world.stats.query(whole)[0]["tool_calls"] == 5
    (row,) = world.stats.query(StatsQuery(MAY, NOW, filters={"tenant": tenant}))
    assert (row["tool_calls"], row["credits"]) == (5, "0.25")


def test_a_story_says_what_has_expired_and_runs_are_searched_since_then(
    expiry: ExpiryWorld,
) -> None:
    world, tenant = expiry.world, "story"
    send(expiry, tenant)
    assert world.runs.get("spanning", tenant)["expired_before"] is None
    expiry.expire()
    story = world.runs.get("spanning", tenant)
    assert story["expired_before"] == "2026-06-01T00:00:00.000000Z"
    assert [one["event_id"] for one in story["timeline"]] == ["spanning-2"]
    assert (story["events"], len(story["charge_lines"])) == (2, 2)
    assert world.runs.get("july", tenant)["expired_before"] is None
    found = world.runs.page({"tenant": tenant, "tool": "search"})["runs"]
    assert {one["run_id"] for one in found} == {"spanning", "july"}
    with pytest.raises(InvalidInput, match="runs are kept for ever"):
        world.runs.page({"tenant": tenant, "tool": "search", "from": str(MAY)})
    assert len(world.runs.page({"tenant": tenant, "from": str(MAY)})["runs"]) == 3


def test_quotas_are_compared_from_the_horizon_on(expiry: ExpiryWorld) -> None:
    world = expiry.world
    send(expiry, "quotas")
    expiry.expire()
    reconciler = QuotaReconciler(VaultStore(world.pool), expiry.store, world.positions)
    assert reconciler.report(MAY, NOW)["from"] == "2026-06-01T00:00:00.000000Z"
