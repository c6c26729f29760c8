"""Rules of budgets: windows of any calendar, matching against the naive way, rolling, waiting."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.clock import DAY, HOUR, SECOND, from_datetime, to_datetime
from tallystick.enforcement.budgets import ActiveBudgets, Budget, BudgetTerms, Threshold
from tallystick.enforcement.budgets.matching import fill_attribution
from tallystick.enforcement.budgets.model import DIMENSIONS, EACH
from tallystick.enforcement.budgets.rules import (
    budget_id_of,
    limit_id_of,
    throttle_seconds,
    window_at,
    window_before,
)
from tallystick.ledger.rules import LimitState, plan_roll_off

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Havana",
    "Asia/Beirut", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo",
    "America/Asuncion", "Atlantic/Azores",
]  # fmt: skip
moments = st.integers(from_datetime(datetime(2009, 1, 1, tzinfo=ZoneInfo("UTC"))), 2**51)
calendars = st.builds(
    BudgetTerms,
    asset=st.just("USD"),
    amount=st.just(1),
    window=st.sampled_from(["day", "week", "month"]),
    anchor_day=st.integers(1, 7),
    time_zone=st.sampled_from(ZONES),
) | st.builds(
    BudgetTerms,
    asset=st.just("USD"),
    amount=st.just(1),
    window=st.just("month"),
    anchor_day=st.integers(1, 31),
    time_zone=st.sampled_from(ZONES),
)


@given(terms=calendars, at=moments)
@settings(max_examples=300, deadline=None)
def test_windows_cover_all_time_and_never_overlap(terms: BudgetTerms, at: int) -> None:
    window = window_at(terms, at)
    assert window.end_at is not None
    assert window.start_at <= at < window.end_at
    assert window_at(terms, window.start_at) == window
    assert window_at(terms, window.end_at - 1) == window
    after = window_at(terms, window.end_at)
    assert after.start_at == window.end_at
    assert window_before(terms, after) == window


@given(terms=calendars, at=moments)
@settings(max_examples=200, deadline=None)
def test_windows_begin_on_their_day_there(terms: BudgetTerms, at: int) -> None:
    zone = ZoneInfo(terms.time_zone)
    begin = to_datetime(window_at(terms, at).start_at).astimezone(zone)
    before = to_datetime(window_at(terms, at).start_at - 1).astimezone(zone)
    assert before.date() != begin.date() or begin.fold  # the first instant of its day
    if terms.window == "week" and begin.date().year != 2011:  # Apia left a day out
        assert begin.isoweekday() == terms.anchor_day
    if terms.window == "month":
        is_last = (begin.replace(hour=12, fold=0) + (to_datetime(DAY) - to_datetime(0))).day == 1
        assert begin.day == terms.anchor_day or (is_last and begin.day < terms.anchor_day)


def _at(text: str, zone: str) -> int:
    return from_datetime(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("America/New_York", "2026-11-01", 25),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("America/Havana", "2026-03-08", 23),
        ("America/Sao_Paulo", "2018-11-04", 23),
        ("UTC", "2026-03-29", 24),
    ],
)
def test_a_day_is_as_long_as_it_is_there(zone: str, day: str, hours: float) -> None:
    terms = BudgetTerms(asset="USD", amount=1, window="day", time_zone=zone)
    window = window_at(terms, _at(f"{day}T12:00", zone))
    assert window.end_at is not None
    assert window.end_at - window.start_at == hours * HOUR


def test_a_month_begins_at_its_anchor_or_on_its_last_day() -> None:
    terms = BudgetTerms(asset="USD", amount=1, window="month", anchor_day=31)
    begins = []
    at = _at("2026-01-15T00:00", "UTC")
    for _ in range(5):
        window = window_at(terms, at)
        begins.append(str(to_datetime(window.start_at).date()))
        at = window.end_at or 0
    assert begins == ["2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]


values = st.sampled_from(["a", "b", EACH])
scopes = st.dictionaries(st.sampled_from(DIMENSIONS[1:5]), values, max_size=3)
attributions = st.dictionaries(
    st.sampled_from([*DIMENSIONS[1:5], "colour"]), st.sampled_from(["a", "b", "c"])
)


def _budget(number: int, scope: dict[str, str], status: str = "active") -> Budget:
    terms = BudgetTerms(asset="USD", amount=1, scope=scope)
    return Budget("t", f"b{number}", 1, status, terms, 0, 0, "test")


@given(scopes=st.lists(scopes, max_size=12), attribution=attributions)
@settings(max_examples=200, deadline=None)
def test_matching_is_what_the_naive_way_finds(
    scopes: list[dict[str, str]], attribution: dict[str, str]
) -> None:
    budgets = [_budget(number, scope) for number, scope in enumerate(scopes)]
    active = ActiveBudgets()
    active.apply(1, budgets)
    found = {(part.budget.budget_id, part.each) for part in active.match("t", attribution, 0)}
    naive = set()
    for budget in budgets:
        scope = budget.terms.scope
        said = {name: attribution.get(name, "") for name in scope}
        if all(said[name] and value in (EACH, said[name]) for name, value in scope.items()):
            each = tuple(sorted((n, attribution[n]) for n, v in scope.items() if v == EACH))
            naive.add((budget.budget_id, each))
    assert found == naive
    assert active.match("other", attribution, 0) == []
    may = {one.budget_id for one in active.index("t").may_match(fill_attribution("t", {}))}
    assert {name for name, _ in found} <= may


def test_edits_change_what_matches() -> None:
    active = ActiveBudgets()
    active.apply(1, [_budget(1, {"team": "a"}), _budget(2, {})])
    active.apply(2, [_budget(1, {"team": "a"}, "paused")])
    assert [part.budget.budget_id for part in active.match("t", {"team": "a"}, 0)] == ["b2"]
    assert active.match("t", {"team_id": "a"}, 0)[0].limit_id.startswith("budget:t/b2/")


@given(
    tenant=st.text(min_size=1, max_size=20),
    each=st.lists(st.text(max_size=5), max_size=2),
    at=moments,
)
@settings(max_examples=100)
def test_a_window_s_name_tells_its_budget(tenant: str, each: list[str], at: int) -> None:
    for window in ("day", "rolling"):
        terms = BudgetTerms(asset="USD", amount=1, window=window, rolling_hours=1)
        name = limit_id_of(tenant, "the-budget.1", terms, each, window_at(terms, at))
        assert budget_id_of(name) == "the-budget.1"
    assert budget_id_of("account-limit") == ""


slices = st.lists(st.tuples(st.integers(0, 20), st.integers(-5, 9)), max_size=8)


@given(found=slices, until=st.integers(0, 20))
def test_rolling_never_frees_what_is_in_the_window(
    found: list[tuple[int, int]], until: int
) -> None:
    ordered = sorted(found)
    total = sum(used for _, used in ordered)
    if total < 0:
        return
    left = plan_roll_off(ordered, until)
    assert all(begin > until and used > 0 for begin, used in left)
    inside = sum(used for begin, used in ordered if begin > until and used > 0)
    corrections = -sum(used for _, used in ordered if used < 0)
    outside = sum(used for begin, used in ordered if begin <= until and used > 0)
    # corrections are taken from what is oldest: only what that leaves of them is taken inside
    assert sum(used for _, used in left) == inside - max(corrections - outside, 0)


@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=20),
    slice_count=st.integers(1, 6),
)
def test_usage_leaves_a_rolling_window_after_it_and_within_a_slice(
    steps: list[tuple[int, int]], slice_count: int
) -> None:
    width = 10
    limit = LimitState("l", "USD/9", 10**6, 0, 0, 0, "hard", 0, 0, width, slice_count)
    slices: dict[int, int] = {}
    posted: list[tuple[int, int]] = []
    now = 0
    for pause, units in steps:
        now += pause
        left = limit.roll(sorted(slices.items()), now)
        slices = dict(left)
        least = sum(one for at, one in posted if at > now - width * slice_count)
        most = sum(one for at, one in posted if at > now - width * (slice_count + 1))
        assert least <= limit.used <= most
        slices[now // width * width] = slices.get(now // width * width, 0) + units
        limit.count(units, 0)
        posted.append((now, units))
        assert limit.used + limit.rolled == sum(one for _, one in posted)


def test_a_throttle_gives_the_rest_out_evenly() -> None:
    terms = BudgetTerms(
        asset="requests",
        amount=100,
        window="day",
        thresholds=(Threshold(Decimal("0.8"), "throttle"),),
    )
    window = window_at(terms, 0)
    assert throttle_seconds(terms, window, 0, 70, 10, 0) == 0  # below the threshold
    wait = throttle_seconds(terms, window, 0, 80, 1, 0)
    assert wait == DAY // 20 // SECOND  # a twentieth of the rest, a twentieth of the day
    assert throttle_seconds(terms, window, 0, 80, 1, wait * SECOND) == 0
    assert throttle_seconds(terms, window, 0, 89, 1, DAY // 2) == 0
    assert throttle_seconds(terms, window, 0, 99, 5, 0) == DAY // SECOND


@given(counted=st.integers(0, 120), units=st.integers(1, 30), at=st.integers(0, DAY - 1))
def test_who_waits_as_told_goes_on(counted: int, units: int, at: int) -> None:
    terms = BudgetTerms(
        asset="requests",
        amount=100,
        window="day",
        thresholds=(Threshold(Decimal("0.5"), "throttle"),),
    )
    window = window_at(terms, 0)
    wait = throttle_seconds(terms, window, 0, counted, units, at)
    assert throttle_seconds(terms, window, 0, counted, units, at + wait * SECOND) == 0


def test_an_organization_that_a_caller_names_is_no_way_around_its_tenants_budget() -> None:
    active = ActiveBudgets()
    active.apply(1, [_budget(1, {"org": "t"}), _budget(2, {"org": "t", "team": "a"})])
    said = {"org": "elsewhere", "team": "a"}
    assert [part.budget.budget_id for part in active.match("t", said, 0)] == ["b1", "b2"]
    assert [part.budget.budget_id for part in active.match("t", {"org": "x"}, 0)] == ["b1"]
