"""Rules of overrun response: detectors, baselines, launches and the ladder, in small tables."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest

from tallystick.clock import MINUTE, FixedClock
from tallystick.enforcement.overrun.baselines import usual_at
from tallystick.enforcement.overrun.ladder import next_step, plan_step, policy_for
from tallystick.enforcement.overrun.model import (
    Kind,
    Mitigation,
    Overrun,
    PlannedLaunch,
    Policy,
    Rung,
    SeriesKey,
    Severity,
    Step,
)
from tallystick.enforcement.overrun.series import HOURS_KEPT, Book, Change, Point
from tallystick.enforcement.overrun.watch import RECOVERED_AFTER, Watch
from tallystick.ids import Uuid7Source

START = 29_000_000  # a minute
DOLLAR = 10**9
KEY = SeriesKey("acme", "key", "k1")


def new_watch() -> Watch:
    return Watch(Uuid7Source(FixedClock(0)))


def feed(watch: Watch, start: int, end: int, point: Point, key: SeriesKey = KEY) -> list[Overrun]:
    """A point in each of the minutes [start, end), judged at the end of each."""
    opened = []
    for minute in range(start, end):
        changed = watch.take([Change(key, minute, point)])
        opened += watch.judge((minute + 1) * MINUTE, changed).opened
    return opened


def steady(dollars_a_minute: float, **more: int) -> Point:
    return Point(spend_units=round(dollars_a_minute * DOLLAR), **{"calls": 60, **more})


def test_a_steady_scope_is_no_alarm_and_ten_times_it_is_within_two_minutes() -> None:
    watch = new_watch()
    assert feed(watch, START, START + 120, steady(0.5)) == []
    opened = feed(watch, START + 120, START + 122, steady(5))
    assert [one.key for one in opened] == [KEY]
    assert [one.severity for one in watch.open_overruns()] == [Severity.CRITICAL]


def test_cents_never_alarm() -> None:
    watch = new_watch()
    feed(watch, START, START + 120, steady(0.0005))
    assert feed(watch, START + 120, START + 140, steady(0.03)) == []


def test_an_overrun_lasts_until_it_has_recovered_for_a_while() -> None:
    watch = new_watch()
    feed(watch, START, START + 120, steady(0.5))
    feed(watch, START + 120, START + 130, steady(5))
    assert len(watch.open_overruns()) == 1
    assert feed(watch, START + 130, START + 135, steady(0.5)) == []
    assert len(watch.open_overruns()) == 1
    feed(watch, START + 135, START + 200, steady(0.5))
    assert watch.open_overruns() == []


def test_silence_ends_an_overrun_too() -> None:
    watch = new_watch()
    feed(watch, START, START + 120, steady(0.5))
    feed(watch, START + 120, START + 125, steady(5))
    seen_at = watch.open_overruns()[0].last_at
    said = watch.judge(seen_at + RECOVERED_AFTER, {KEY})
    assert [one.closed_at for one in said.closed] == [seen_at + RECOVERED_AFTER]


def test_storms_are_seen_by_rate_and_not_by_count() -> None:
    watch = new_watch()
    feed(watch, START, START + 90, steady(0.01, errors=1))
    assert feed(watch, START + 90, START + 95, steady(0.01, calls=600, errors=10)) == []
    opened = feed(watch, START + 95, START + 97, steady(0.01, errors=40))
    assert [one.kind for one in opened] == [Kind.ERROR_STORM]
    opened = feed(watch, START + 97, START + 99, steady(0.01, retries=40, retry_units=7))
    assert [one.kind for one in opened] == [Kind.RETRY_STORM]


def test_a_lost_cache_is_named() -> None:
    watch = new_watch()
    usual = steady(0.5, tokens_input=60_000, cache_reads=48_000)
    feed(watch, START, START + 120, usual)
    lost = steady(1.2, tokens_input=60_000, cache_reads=0)
    opened = feed(watch, START + 120, START + 125, lost)
    assert [one.detector for one in opened] == ["cache hit share"]


def test_one_incident_is_one_alarm() -> None:
    """The key's whole excess is the tenant's too: only the key is told."""
    watch = new_watch()
    tenant = SeriesKey("acme", "tenant", "acme")
    for minute in range(START, START + 125):
        point = steady(0.5 if minute < START + 120 else 6)
        changed = watch.take([Change(KEY, minute, point), Change(tenant, minute, point)])
        watch.judge((minute + 1) * MINUTE, changed)
    assert [one.dimension for one in watch.open_overruns()] == ["key"]


def launch(**changes: object) -> PlannedLaunch:
    made = PlannedLaunch(
        launch_id="l",
        tenant_id="acme",
        dimension="key",
        value="k1",
        from_at=(START + 110) * MINUTE,
        to_at=(START + 300) * MINUTE,
        factor=Decimal(4),
        reason="launch",
        created_at=0,
        created_by="admin",
    )
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize(
    ("plan", "dollars", "is_alarm"),
    [
        (launch(), 2.0, False),
        (launch(), 20.0, True),
        (launch(value="k2"), 2.0, True),
        (launch(tenant_id="globex"), 2.0, True),
        (launch(to_at=(START + 111) * MINUTE), 2.0, True),
        (launch(withdrawn_at=1), 2.0, True),
        (launch(factor=Decimal(1), extra_units=190 * 2 * DOLLAR), 2.0, False),
    ],
)
def test_a_launch_explains_what_it_says_and_no_more(
    plan: PlannedLaunch, dollars: float, is_alarm: bool
) -> None:
    watch = new_watch()
    watch.launches = [plan]
    feed(watch, START, START + 120, steady(0.5))
    assert bool(feed(watch, START + 120, START + 130, steady(dollars))) is is_alarm


def test_usual_is_of_the_same_hour_of_the_week_when_there_are_three_weeks() -> None:
    book = Book()
    hour = START // 60
    past = [
        (KEY, hour - back, Point(spend_units=(60 if back % 168 == 0 else 6) * DOLLAR))
        for back in range(1, 168 * 4)
    ]
    book.take_hours(past)
    usual = usual_at(book.series[KEY], hour, START)
    assert usual is not None and usual.season == "week"
    young = Book()
    young.take_hours(past[: 24 * 5])
    usual = usual_at(young.series[KEY], hour, START)
    assert usual is not None and (usual.season, usual.level) == ("day", 0.1 * DOLLAR)


def test_the_number_of_series_is_bounded_and_the_greatest_stay() -> None:
    book = Book(values_max=10)
    for number in range(50):
        key = SeriesKey("acme", "user", f"u{number}")
        book.take([Change(key, START, Point(spend_units=number))])
    book.move((START + 1) * MINUTE)
    assert {key.value for key in book.series} == {f"u{number}" for number in range(40, 50)}


def test_what_rests_for_weeks_is_forgotten() -> None:
    """Keys and users come and go: a process that lives for months keeps none that are gone."""
    watch = new_watch()
    feed(watch, START, START + 120, steady(0.5))
    assert KEY in watch.book.series and KEY in watch._known
    watch.judge((START + (HOURS_KEPT + 5) * 60) * MINUTE, [])
    assert not watch.book.series and not watch._known


OVERRUN = Overrun(
    overrun_id="o",
    tenant_id="acme",
    kind=Kind.BURN_RATE,
    dimension="key",
    value="k1",
    severity=Severity.CRITICAL,
    detector="burn 5m",
    since=0,
    seen_at=0,
    last_at=0,
    observed_units=1,
    expected_units=0,
    excess_units=1,
    detail="",
)
LADDER = Policy(
    tenant_id="acme",
    steps=(
        Rung(step=Step.ALERT),
        Rung(step=Step.THROTTLE),
        Rung(step=Step.BLOCK, after_seconds=300),
    ),
)


def taken(step: Step, ended_at: int | None) -> Mitigation:
    return Mitigation(
        mitigation_id="m",
        tenant_id="acme",
        scope={"key": "k1"},
        step=step,
        reason="r",
        starts_at=0,
        expires_at=100,
        ended_at=ended_at,
        created_by="ladder",
    )


@pytest.mark.parametrize(
    ("minutes", "done", "step"),
    [
        (0, [], Step.THROTTLE),
        (1, [taken(Step.THROTTLE, None)], None),
        (5, [taken(Step.THROTTLE, None)], Step.BLOCK),
        (5, [taken(Step.BLOCK, 50)], None),  # undone by hand: not taken again
        (5, [taken(Step.BLOCK, 100)], Step.BLOCK),  # over, and the overrun lasts
    ],
)
def test_the_ladder(minutes: int, done: list[Mitigation], step: Step | None) -> None:
    rung = plan_step(OVERRUN, LADDER, done, minutes * MINUTE)
    assert (rung.step if rung else None) == step


def test_without_a_policy_nothing_happens_by_itself() -> None:
    assert plan_step(OVERRUN, None, [], 10**12) is None
    assert "nothing by itself" in next_step(OVERRUN, None, 0)
    assert next_step(OVERRUN, LADDER, 0) == "block in 300 s for 3600 s"


def test_the_closest_policy_counts_and_never_another_tenants() -> None:
    policies = [
        Policy(tenant_id="acme"),
        Policy(tenant_id="acme", dimension="key"),
        Policy(tenant_id="acme", dimension="key", value="k1"),
        Policy(tenant_id="globex", dimension="key", value="k1"),
    ]
    assert policy_for(OVERRUN, policies) == policies[2]
    assert policy_for(OVERRUN, policies[:2]) == policies[1]
    assert policy_for(OVERRUN, policies[3:]) is None
