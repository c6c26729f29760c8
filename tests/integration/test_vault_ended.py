"""What the vault keeps of runs goes when a window is over for good, and the ledger's figures stand.

On real stores: budgets, the ledger and its windows; clocks that the tests move.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tallystick.clock import DAY, HOUR, MINUTE, FixedClock, SystemClock, format_time
from tallystick.enforcement.budgets import Budgets, BudgetTerms
from tallystick.enforcement.budgets.rules import budget_id_of
from tallystick.enforcement.quotas import BudgetAssignments
from tallystick.enforcement.vault import Counting, VaultStore, ended
from tallystick.enforcement.vault.ended import KEPT_FOR
from tallystick.enforcement.vault.service import month_of
from tallystick.ids import Uuid7Source
from tallystick.ledger import CaptureRequest, HoldRequest, Ledger, LimitPart
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.postgres import transaction
from tests.backfills import BackfillWorld
from tests.conftest import make_database
from tests.vault_world import follow, follower_of, heads_of, rebuilt, require_agreement
from tests.world import World

_serial = count()
_TENANT = "acme"
_PRICE = 330_000
"""USD/9 of one call below."""


class Scene:
    """A tenant with a budget a day for each model and one a month; its first day is long ago."""

    def __init__(self, world: World) -> None:
        self.world = world
        day = month_of(world.clock.now() - 70 * DAY)[0]
        self.end = day + DAY
        self.clock = FixedClock(day + HOUR)
        self.ledger = Ledger(world.pool, self.clock, Uuid7Source(self.clock))
        self.budgets = Budgets(world.pool, self.clock)
        self.put("daily", window="day", scope={"model": "*"})
        self.put("monthly", window="month")
        self.backfills = BackfillWorld(world)
        self.backfills.set_prices(_TENANT, "3", "0.2")
        self.counting = self.new_counting()
        self.follow()

    def put(self, name: str, **terms: Any) -> None:
        made = BudgetTerms(asset="USD", amount=10**10, **terms)
        self.budgets.put(_TENANT, name, made, changed_by="test")

    def new_counting(self) -> Counting:
        """Another vault, or the same after a crash."""
        pool = self.world.pool
        return Counting(
            pool,
            VaultStore(pool),
            BudgetAssignments(pool, self.budgets, makes_windows=True),
            self.ledger,
            self.clock,
            heads_of(self.world),
        )

    def take_in(self) -> None:
        """Count what there is."""
        follow(follower_of(self.world, counting=self.counting))

    def follow(self, at: int = 0) -> None:
        """The same at a later time, when the vault looks at windows, too."""
        self.clock.micros = max(at, self.clock.micros + MINUTE)
        self.take_in()

    def pass_to(self, at: int) -> None:
        """Let the vault see that it has read all of the log then, an hour later."""
        self.follow(at)
        self.follow(at + HOUR)

    def send(self, *runs: str, **changes: Any) -> None:
        """A call of each run, of the first day."""
        events = [
            {
                "event_id": f"{_TENANT}-{next(_serial)}",
                "event_type": "token_usage",
                "event_time": format_time(self.end - HOUR),
                "tenant_id": _TENANT,
                "run_id": run,
                "provider": "p",
                "model": "m",
                "tokens_input": 100,
                "tokens_output": 10,
                **changes,
            }
            for run in runs
        ]
        assert self.world.send(events).accepted == len(events)

    def kept(self) -> dict[str, dict[str, int]]:
        """What the vault keeps: budget -> run -> spent."""
        found: dict[str, dict[str, int]] = {}
        for limit_id, run, spent in self.load(
            "SELECT limit_id, run_id, spent_units FROM enforcement.vault_run "
            "WHERE source_key <> 'baseline'"
        ):
            found.setdefault(budget_id_of(limit_id), {})[run] = int(spent)
        return found

    def watched(self) -> set[str]:
        """Budgets of known windows that ended on the first day, or never end."""
        rows = self.load("SELECT limit_id, ends_at FROM enforcement.vault_watch")
        return {budget_id_of(limit_id) for limit_id, at in rows if at is None or at <= self.end}

    def counted(self, budget: str = "") -> list[tuple[Any, ...]]:
        """What the ledger says was used of windows, and by whom."""
        rows = self.load(
            "SELECT limit_id, used, source_key, units FROM ledger.limit_window "
            "LEFT JOIN ledger.limit_usage USING (limit_id) "
            "WHERE used > 0 ORDER BY limit_id, source_key"
        )
        return [row for row in rows if not budget or budget_id_of(row[0]) == budget]

    def used(self) -> dict[str, int]:
        """Used of each budget; no test works in two windows of one."""
        return {budget_id_of(limit_id): used for limit_id, used, _, _ in self.counted()}

    def load(self, sql: str) -> list[tuple[Any, ...]]:
        with transaction(self.world.pool) as connection:
            return connection.execute(sql.encode()).fetchall()


@pytest.fixture
def scene(postgres: EmbeddedPostgres, clickhouse: ClickHouse, tmp_path: Path) -> Iterator[Scene]:
    """In a database of its own: windows of all tenants close together."""
    url = make_database(postgres, f"ended_{next(_serial)}")
    world = World(url, clickhouse, tmp_path, SystemClock())
    world.facts.wipe()
    yield Scene(world)
    world.close()


def runs(*names: str, calls: int = 1) -> dict[str, int]:
    return dict.fromkeys(names, calls * _PRICE)


def test_runs_of_a_window_go_once_nothing_counts_in_it(scene: Scene) -> None:
    scene.send("a", "b", "")
    scene.follow()
    before = scene.counted()
    assert scene.used() == {"daily": 3 * _PRICE, "monthly": 3 * _PRICE}
    scene.pass_to(scene.end + KEPT_FOR - 2 * HOUR)
    assert scene.kept() == {"daily": runs("a", "b", ""), "monthly": runs("a", "b", "")}
    scene.pass_to(scene.end + KEPT_FOR)
    assert scene.kept() == {"monthly": runs("a", "b", "")}
    assert scene.watched() == set()
    assert scene.counted() == before
    assert scene.ledger.verify() == []
    scene.world.settle()
    require_agreement(scene.world)


def test_what_comes_later_changes_nothing_of_a_closed_window(scene: Scene) -> None:
    """Late events of a known run and of a new one, corrections: the open month counts them."""
    scene.send("a", "b")
    scene.follow()
    scene.pass_to(scene.end + KEPT_FOR)
    scene.send("a", "new")
    scene.take_in()
    month = {**runs("a", calls=2), **runs("b", "new")}
    assert scene.kept() == {"monthly": month}
    assert scene.used() == {"daily": 2 * _PRICE, "monthly": 4 * _PRICE}
    scene.world.settle()
    scene.backfills.set_prices(_TENANT, "6", "0.2")
    assert scene.backfills.run(_TENANT)["status"] == "done"
    scene.take_in()
    assert scene.kept() == {"monthly": {run: 2 * spent for run, spent in month.items()}}
    assert scene.used() == {"daily": 2 * _PRICE, "monthly": 8 * _PRICE}
    assert scene.watched() == set()
    require_agreement(scene.world)


@pytest.mark.parametrize("events_per_step", [1, 50_000])
def test_a_replay_brings_nothing_back(scene: Scene, events_per_step: int) -> None:
    scene.send("a", "b")
    scene.follow()
    scene.pass_to(scene.end + KEPT_FOR)
    scene.send("a")
    scene.follow()
    kept, counted, spent = scene.kept(), scene.counted(), VaultStore(scene.world.pool).dump()
    again = rebuilt(scene.world, counting=scene.counting, events_per_step=events_per_step)
    assert (scene.kept(), scene.counted(), again) == (kept, counted, spent)
    scene.follow()
    assert (scene.kept(), scene.counted()) == (kept, counted)


def test_rows_go_in_pieces_whoever_deletes_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One vault begins, late events come, and another that knows nothing goes on."""
    monkeypatch.setattr(ended, "_ROWS_PER_LOOK", 2)
    scene.send(*"abcdefg")
    scene.follow()
    before = scene.counted("daily")
    scene.follow(scene.end + KEPT_FOR)
    left = []
    for place in range(5):
        scene.follow(scene.clock.micros + HOUR)
        left.append((len(scene.kept().get("daily", {})), scene.watched()))
        scene.send("a", "g")
        scene.take_in()
        if place == 1:
            scene.counting = scene.new_counting()
    assert left == [*((n, {"daily"}) for n in (5, 3, 1)), (0, set()), (0, set())]
    assert scene.counted("daily") == before


def test_no_window_closes_before_the_vault_has_read_what_came(scene: Scene) -> None:
    """It was behind for all of that time: what had come is counted first."""
    scene.send("a")
    scene.follow()
    scene.send("a", "b")
    scene.counting = scene.new_counting()
    for hours in range(3):
        scene.clock.micros = scene.end + KEPT_FOR + hours * (HOUR + MINUTE)
        scene.counting.settle()
    assert scene.kept()["daily"] == runs("a")
    scene.follow()
    assert scene.used()["daily"] == 3 * _PRICE
    scene.pass_to(scene.clock.micros + HOUR)
    assert "daily" not in scene.kept()
    assert scene.used()["daily"] == 3 * _PRICE


def test_a_window_waits_for_its_holds(scene: Scene) -> None:
    scene.send("a")
    scene.follow()
    (window,) = scene.budgets.windows(_TENANT, "daily")
    scene.ledger.put_account(_TENANT, tenant_id=_TENANT, overage_limit_units=10**12)
    held = scene.ledger.apply(
        HoldRequest(
            _TENANT,
            1,
            run_id="a",
            limits=(LimitPart(window.limit_id, _PRICE),),
            ttl_seconds=30 * 86_400,
            idempotency_key="hold",
        )
    )
    scene.pass_to(scene.end + KEPT_FOR)
    assert scene.kept()["daily"] == runs("a")
    capture = (LimitPart(window.limit_id, _PRICE // 3),)
    scene.ledger.apply(CaptureRequest(held.hold_id, 1, limits=capture, idempotency_key="end"))
    scene.pass_to(scene.clock.micros + HOUR)
    assert scene.used()["daily"] == _PRICE
    scene.pass_to(scene.clock.micros + HOUR)
    assert "daily" not in scene.kept()
    assert scene.used()["daily"] == _PRICE


def test_a_clock_that_is_ahead_for_a_moment_closes_nothing(scene: Scene) -> None:
    scene.send("a")
    scene.follow()
    now = scene.clock.micros
    scene.follow(scene.end + 10 * KEPT_FOR)
    scene.clock.micros = now
    for _ in range(3):
        scene.follow(scene.clock.micros + HOUR)
    assert scene.kept()["daily"] == runs("a")


def test_a_rolling_window_keeps_its_runs(scene: Scene) -> None:
    """It never ends, and a run may go on after a pause."""
    scene.put("rolling", window="rolling", rolling_hours=1)
    scene.send("a", event_time=scene.world.at(-1))
    scene.follow()
    scene.pass_to(scene.end + KEPT_FOR)
    assert scene.kept()["rolling"] == runs("a")
    assert scene.watched() == {"rolling"}
