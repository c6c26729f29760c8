"""INV-11: whatever rollup answers /v1/stats, it says what plain arithmetic over the facts says.

Facts are written as the sink writes them, corrections and later attempts among them, folded in
two steps, and asked for by every way that a query can take: rollups of few or all dimensions,
users, the facts themselves, and the projections of the charge lines.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.analytics.facts import FACT_TYPES, charge_key_of
from tallystick.analytics.stats import (
    DIMENSIONS,
    INTERVALS,
    METRICS,
    Stats,
    StatsQuery,
    _credits_source,
    as_text,
    charge_pieces,
    rollup_pieces,
)
from tallystick.analytics.store import COARSE, FOLDED_FROM_FACTS, FactStore, LinePlan
from tallystick.clock import DAY, HOUR, MINUTE, SECOND, format_time
from tallystick.plumbing.clickhouse import ClickHouse

START = 20_000 * DAY
DAYS = 3
WIDTHS = {"minute": MINUTE, "hour": HOUR, "day": DAY}
TEXTS = {name: [f"{name}-a", f"{name}-b"] for name in ("team", "feature", "model", "tool")}

RANKED = ("runs", "attempts", "events", "calls", "cost_usd", "credits", "retry_waste_usd")

fact_shapes = st.fixed_dictionaries(
    {
        "tenant_id": st.sampled_from(["t1", "t2"]),
        "run_id": st.sampled_from(["", "r1", "r2", "r3"]),
        "attempt": st.integers(1, 3),
        "at": st.integers(0, DAYS * 24 * 60 - 1),
        "seconds": st.sampled_from([0, 31]),
        "event_type": st.sampled_from(["run_started", "token_usage", "tool_call_finished"]),
        "user_id": st.sampled_from(["", "u1", "u2"]),
        "error_code": st.sampled_from(["", "timeout"]),
        "cost_units": st.integers(0, 10**9),
        "credit_units": st.integers(0, 10**6),
        "sign": st.sampled_from([1, 1, 1, -1]),
        **{name: st.sampled_from(values) for name, values in TEXTS.items()},
    }
)
edges = st.one_of(
    st.integers(0, DAYS).map(lambda day: START + day * DAY),
    st.integers(-30, DAYS * 24 * 60 + 30).map(lambda minute: START + minute * MINUTE),
    st.integers(0, DAYS * 86_400).map(lambda second: START + second * SECOND),
)
names = st.sampled_from(["tenant", "team", "feature", "model", "tool", "error_code", "user"])


@st.composite
def queries(draw: st.DrawFn) -> StatsQuery:
    start, end = sorted((draw(edges), draw(edges)))
    filters = {
        name: draw(st.sampled_from([*TEXTS.get(name, ()), "t1", "u1", ""]))
        for name in draw(st.sets(names, max_size=1))
    }
    groups = tuple(sorted(draw(st.sets(names, max_size=2))))
    return StatsQuery(
        start, max(end, start + 1), draw(st.sampled_from(list(INTERVALS))), groups, filters
    )


def _facts(shapes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    empty: dict[str, Any] = {
        name: None if name == "latency_ms" else "" if pa.types.is_string(kind) else 0
        for name, kind in FACT_TYPES.items()
    }
    rows = []
    for offset, shape in enumerate(shapes):
        moment = START + shape["at"] * MINUTE + shape["seconds"] * SECOND
        row = {**empty, "is_late": False, "is_batch": False, "content_digest": b"\0" * 16}
        row |= {name: value for name, value in shape.items() if name in FACT_TYPES}
        row |= {"occurred_at": moment, "received_at": moment, "log_offset": offset}
        row |= {"event_id": str(offset), "charge_key": charge_key_of(shape["run_id"], moment)}
        rows.append(row)
    return rows


def _land(store: ClickHouse, rows: list[dict[str, Any]]) -> None:
    """Write and fold the rows in two steps, and post the charge lines of all runs in two."""
    facts = FactStore(store)
    facts.wipe()
    half = len(rows) // 2
    for piece in (rows[:half], rows[half:]):
        if not piece:
            continue
        columns = {
            name: pa.array([row[name] for row in piece], kind) for name, kind in FACT_TYPES.items()
        }
        facts.append("facts", pa.table(columns))
        ends = {0: piece[-1]["log_offset"] + 1}
        for table in FOLDED_FROM_FACTS:
            facts.fold_facts(table, facts.query_watermarks(table), ends)
        for table in COARSE:
            facts.fold_deltas(table, facts.query_watermarks(table), ends)
        runs = sorted({(row["tenant_id"], row["charge_key"]) for row in piece})
        wasted = [(*run, 1) for run in runs]
        facts.post_lines(runs, LinePlan(wasted, [], wasted), START)


def _reference(rows: list[dict[str, Any]], query: StatsQuery) -> dict[tuple[str, ...], Any]:
    """The same by plain arithmetic: sets of runs and attempts, sums of signed rows."""
    groups: dict[tuple[str, ...], dict[str, Any]] = defaultdict(
        lambda: {"runs": set(), "attempts": set(), "calls": 0, "cost": 0, "credit": 0, "waste": 0}
    )
    lines: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        if any(row[DIMENSIONS[name]] != value for name, value in query.filters.items()):
            continue
        key = _key(row, query)
        if query.from_at <= row["occurred_at"] < query.to_at:
            found = groups[key]
            if row["run_id"] and row["sign"] == 1:
                found["runs"].add((row["tenant_id"], row["run_id"]))
                found["attempts"].add((row["tenant_id"], row["run_id"], row["attempt"]))
            found["calls"] += row["sign"] * (row["event_type"] == "token_usage")
            found["cost"] += row["sign"] * row["cost_units"]
        if query.from_at <= row["occurred_at"] // MINUTE * MINUTE < query.to_at:
            dimensions = tuple(row[column] for column in DIMENSIONS.values())
            minute = row["occurred_at"] // MINUTE
            line = lines[key, row["charge_key"], minute, dimensions]
            signed = row["sign"] * row["credit_units"]
            is_first = row["attempt"] == 1 or not row["run_id"]  # without a run nothing repeats
            line[0] += 0 if is_first else signed
            line[1] += signed if is_first else 0
            line[2] += row["sign"] * row["cost_units"] if is_first else 0
    for (key, *_), (credit, waste, waste_cost) in lines.items():
        if credit or waste or waste_cost:
            groups[key]["credit"] += credit
            groups[key]["waste"] += waste
    return groups


def _key(row: dict[str, Any], query: StatsQuery) -> tuple[str, ...]:
    at = row["occurred_at"]
    if query.interval in WIDTHS:
        at = at // WIDTHS[query.interval] * WIDTHS[query.interval]
    bucket = format_time(at)
    if query.interval == "month":
        bucket = bucket[:8] + "01T00:00:00" + bucket[19:]
    return (
        *([bucket] if query.interval != "none" else []),
        *(row[DIMENSIONS[name]] for name in query.group_by),
    )


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes=st.lists(fact_shapes, min_size=1, max_size=40), asked=st.lists(queries(), min_size=8))
def test_every_way_to_an_answer_says_what_the_facts_say(
    clickhouse: ClickHouse, shapes: list[dict[str, Any]], asked: list[StatsQuery]
) -> None:
    rows = _facts(shapes)
    _land(clickhouse, rows)
    for query in asked:
        wanted = _reference(rows, query)
        if not wanted and query.interval == "none" and not query.group_by:
            wanted[()]  # one row of zeros
        got = {}
        for row in Stats(clickhouse).query(query):
            bucket = [row["bucket_at"]] if "bucket_at" in row else []
            got[*bucket, *(row[name] for name in query.group_by)] = row
        assert got.keys() == wanted.keys(), query
        for key, sums in wanted.items():
            row = got[key]
            assert (row["runs"], row["attempts"]) == (len(sums["runs"]), len(sums["attempts"]))
            assert row["calls"] == sums["calls"]
            assert Decimal(row["cost_usd"]) == Decimal(sums["cost"]) / 10**9
            assert Decimal(row["credits"]) == Decimal(sums["credit"]) / 10**6
            assert Decimal(row["retry_waste_credits"]) == Decimal(sums["waste"]) / 10**6


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shapes=st.lists(fact_shapes, min_size=1, max_size=20),
    query=queries(),
    metrics=st.sets(st.sampled_from(METRICS), min_size=1, max_size=4),
)
def test_the_metrics_asked_for_are_those_of_the_whole_answer(
    clickhouse: ClickHouse, shapes: list[dict[str, Any]], query: StatsQuery, metrics: set[str]
) -> None:
    _land(clickhouse, _facts(shapes))
    whole = Stats(clickhouse).query(query)
    others = set(METRICS) - metrics
    less = [{name: row[name] for name in row if name not in others} for row in whole]
    assert Stats(clickhouse).query(query._replace(metrics=tuple(metrics))) == less


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shapes=st.lists(fact_shapes, min_size=6, max_size=30),
    query=queries(),
    group_by=st.lists(names, min_size=1, max_size=2, unique=True).map(tuple),
    is_whole=st.booleans(),
    top=st.integers(1, 3),
    top_by=st.sampled_from([*RANKED, "latency_ms_p95", "error_rate"]),
)
def test_top_groups_are_those_of_the_whole_answer(
    clickhouse: ClickHouse,
    shapes: list[dict[str, Any]],
    query: StatsQuery,
    group_by: tuple[str, ...],
    is_whole: bool,
    top: int,
    top_by: str,
) -> None:
    _land(clickhouse, _facts(shapes))
    stats = Stats(clickhouse)
    query = query._replace(group_by=group_by)
    if is_whole:
        query = query._replace(from_at=START, to_at=START + DAYS * DAY, filters={})
    got = stats.query(query._replace(top=top, top_by=top_by))
    whole = stats.query(query._replace(interval="none"))
    chosen = list(dict.fromkeys(_group(row, query) for row in got))
    assert len(chosen) <= top
    if top_by in RANKED:
        figures = {_group(row, query): Decimal(row[top_by]) for row in whole}
        most = sorted(
            (one for one in figures if figures[one] or one in chosen), key=lambda one: figures[one]
        )
        most = most[: -top - 1 : -1]  # a group without any such figure may be left out
        assert sorted(figures[one] for one in chosen) == sorted(figures[one] for one in most)
        if query.interval == "none":
            assert chosen == sorted(chosen, key=lambda one: (-figures[one], one))
    rows = [row for row in stats.query(query) if _group(row, query) in chosen]
    assert sorted(got, key=str) == sorted(rows, key=str)


def test_top_groups_of_two_dimensions_are_all_there(clickhouse: ClickHouse) -> None:
    """Though every pair of their values together would be more than an answer has rows."""
    odd = 'it\'s\t\\ (odd), ["x"]'
    shape = {"tenant_id": "t", "run_id": "r", "attempt": 1, "seconds": 0, "at": 0, "sign": 1}
    shape |= {"event_type": "token_usage", "credit_units": 1}
    pairs = [(f"u{number}", f"m{number % 60}") for number in range(200)] + [(odd, odd)]
    shapes = [
        {**shape, "user_id": user, "model": model, "cost_units": 10**9 + place}
        for place, (user, model) in enumerate(pairs)
    ]
    _land(clickhouse, _facts(shapes))
    query = StatsQuery(START, START + DAY, "none", ("user", "model"), top=150, rows_max=1_000)
    found = [(row["user"], row["model"]) for row in Stats(clickhouse).query(query)]
    assert found == pairs[::-1][:150]


def _group(row: dict[str, Any], query: StatsQuery) -> tuple[str, ...]:
    return tuple(row[name] for name in query.group_by)


@pytest.mark.parametrize(
    ("dimensions", "table"),
    [
        ((), "rollup_day_run"),
        (("tenant", "team"), "rollup_day_run"),
        (("model", "feature"), "rollup_day_model"),
        (("tool",), "rollup_day"),
        (("model", "error_code"), "rollup_day"),
        (("user", "model"), "rollup_user"),
    ],
)
def test_days_are_read_where_the_fewest_rows_are(dimensions: tuple[str, ...], table: str) -> None:
    assert rollup_pieces(StatsQuery(START, START + DAY, "day", dimensions)) == [
        (table, START, START + DAY)
    ]


def test_a_range_is_cut_into_whole_buckets() -> None:
    query = StatsQuery(START - HOUR - MINUTE, START + DAY + MINUTE, "none", ("team",))
    assert [table for table, _, _ in rollup_pieces(query)] == [
        "rollup_minute",
        "rollup_hour_model",
        "rollup_day_run",
        "rollup_minute",
    ]
    assert [column for column, _, _ in charge_pieces(query)] == [
        "toStartOfMinute(bucket_at)",
        "toStartOfHour(bucket_at)",
        "toStartOfDay(bucket_at)",
        "toStartOfMinute(bucket_at)",
    ]


@pytest.mark.parametrize("interval", INTERVALS)
def test_charge_lines_are_read_from_their_projections(
    clickhouse: ClickHouse, interval: str
) -> None:
    FactStore(clickhouse).wipe()
    clickhouse.command(
        "INSERT INTO tallystick.charges (tenant_id, charge_key, bucket_at, credit_units) SELECT "
        "'t', toString(number), {at:DateTime64(6)} + number % 200000, 1 FROM numbers(20000)",
        {"at": as_text(START)},
    )
    query = StatsQuery(START - MINUTE, START + DAY + 61 * MINUTE, interval, ("team",))
    rows = clickhouse.query_rows(f"EXPLAIN {_credits_source(query, ['team'])}")
    plan = "\n".join(row["explain"] for row in rows)
    assert "ReadFromMergeTree (tallystick.charges)" not in plan
    assert plan.count("(charges_") == len(charge_pieces(query))
