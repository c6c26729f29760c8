"""Usage over time and by dimension: the answer to `GET /v1/stats`.

A range is cut into whole days, hours and minutes, each read from its rollup; whole days of
users from theirs; anything else is folded from the facts by the same SELECT that fills the
rollups, so all give one truth. Credits, and what retries wasted, come from the charge lines,
whose sum is what the ledger charged. Error rates carry their 95% Wilson interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

from tallystick.analytics.horizon import require_kept
from tallystick.analytics.store import (
    ADDITIVE,
    COARSE,
    MERGED,
    ROLLUP_KEYS,
    USER_KEYS,
    fold_facts_sql,
)
from tallystick.clock import DAY, HOUR, MINUTE, format_time, to_datetime
from tallystick.errors import InvalidInput
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.units import CREDIT, USD, Asset, format_amount

DIMENSIONS: Mapping[str, str] = {
    "tenant": "tenant_id",
    "team": "team",
    "product": "product",
    "feature": "feature",
    "project": "project_id",
    "user": "user_id",
    "model": "model",
    "provider": "provider",
    "tool": "tool",
    "workflow": "workflow",
    "agent": "agent",
    "customer_tier": "customer_tier",
    "environment": "environment",
    "error_code": "error_code",
    "operation": "operation",
}
"""Name in the API -> column."""

INTERVALS: Mapping[str, str] = {
    "minute": "toStartOfMinute({column})",
    "hour": "toStartOfHour({column})",
    "day": "toStartOfDay({column})",
    "month": "toDateTime(toStartOfMonth({column}), 'UTC')",
    "none": "",
}

_USER_COLUMNS = {"tenant_id", *USER_KEYS}
_COARSEST = {"minute": 1, "hour": 2, "day": 3, "month": 3, "none": 3}
_ROLLUPS: Sequence[tuple[int, Sequence[str]]] = (
    (MINUTE, ("rollup_minute",)),
    (HOUR, ("rollup_hour_model", "rollup_hour")),
    (DAY, ("rollup_day_run", "rollup_day_model", "rollup_day")),
)
"""Rollups by the width of their buckets, those of the fewest dimensions first."""

_COUNTS = tuple(name for name in ADDITIVE if name != "cost_units")
_DISTINCT = "uniqCombined64Array(17)"
"""Counts hashes of runs or attempts: exactly up to some 16,000, within 1% above."""

_LATENCIES = ("latency_ms_p50", "latency_ms_p95", "latency_ms_p99")
_RUNS = f"{_DISTINCT}(arrayConcat(s.first_attempts, s.retried_runs))"
_ATTEMPTS = f"{_DISTINCT}(arrayConcat(s.first_attempts, s.retries))"
_QUANTILES = "quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(s.latency)"
_COSTLY: Mapping[tuple[str, ...], str] = {
    ("runs",): f"{_RUNS} AS runs",
    ("attempts",): f"{_ATTEMPTS} AS attempts",
    _LATENCIES: f"{_QUANTILES} AS latency",
}
"""What is worked out when one of these metrics is asked for: over many runs, most of the time."""

METRICS = (
    *("runs", "attempts", *_COUNTS, "error_rate", "error_rate_interval", "cost_usd"),
    *("cost_coverage", "credits", "retry_waste_usd", "retry_waste_credits", *_LATENCIES),
)
"""What a row says of its group."""

_CREDITS = ("credit_units", "waste_credit_units", "waste_cost_units")
_CREDIT_METRICS = dict(
    zip(("credits", "retry_waste_credits", "retry_waste_usd"), _CREDITS, strict=True)
)
_RANKS: Mapping[str, str] = {
    **{name: f"sum(s.{name})" for name in _COUNTS},
    **{name: f"sum(s.{column})" for name, column in _CREDIT_METRICS.items()},
    "runs": _RUNS,
    "attempts": _ATTEMPTS,
    "cost_usd": "sum(toInt128(s.cost_units))",
    "error_rate": "sum(s.errors) / (sum(s.calls) + sum(s.tool_calls))",
    **{name: f"{_QUANTILES}[{place}]" for place, name in enumerate(_LATENCIES, 1)},
}
"""By what groups can be ranked: metric -> its expression over a source's rows."""

TOP_MAX = 1_000
_CHARGE_BUCKETS = (
    ("toStartOfMinute(bucket_at)", MINUTE),
    ("toStartOfHour(bucket_at)", HOUR),
    ("toStartOfDay(bucket_at)", DAY),
)
"""Buckets by which the table of charges keeps sums (its projections)."""

_FROM_ROLLUPS = (
    "in whole minutes by any dimension but user, or in whole days by user with tenant, provider, "
    "model, tool and error_code alone: sums of those are kept for ever"
)

ROWS_MAX = 10_000


Row = dict[str, Any]
Figure = Callable[[Row], Any]


class StatsQuery(NamedTuple):
    """What is asked: [from_at, to_at) in micros, grouped and filtered by dimension names.

    `metrics` are those to be answered: all, when none is named. `top` leaves only so many
    groups, those with the most of `top_by` in the whole range; 0 leaves all.
    """

    from_at: int
    to_at: int
    interval: str = "none"
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, str] = {}
    metrics: tuple[str, ...] = ()
    rows_max: int = ROWS_MAX
    top: int = 0
    top_by: str = "cost_usd"
    among: Sequence[tuple[str, ...]] = ()
    """The groups to which an answer is held, when there are any: the top ones."""


class Stats:
    """Answers stats queries from ClickHouse."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    def query(self, query: StatsQuery) -> list[dict[str, Any]]:
        """Return rows ready for JSON, the first ones: counts as integers, amounts as text.

        Each row has `bucket_at` (unless the interval is "none"), the grouped dimensions, and
        the METRICS that are asked for. They are in the order of their buckets and groups; those
        of top groups go by rank. Raises InvalidInput on an unknown dimension, metric or interval,
        and on facts that have expired.
        """
        check_query(query)
        if not rollup_pieces(query):
            require_kept(self._store, query.from_at, _FROM_ROLLUPS)
        groups = [DIMENSIONS[name] for name in query.group_by]
        ranks = self._query_ranks(query, groups) if query.top else {}
        if query.top and not ranks:
            return []
        query = query._replace(among=tuple(ranks))
        merged: dict[tuple[Any, ...], dict[str, Any]] = {}
        keys = (["bucket"] if query.interval != "none" else []) + groups
        names = _wanted(query)
        for row in self._query_usage(query, groups, names):
            merged[tuple(row[key] for key in keys)] = row
        for row in self._query_credits(query, groups):
            key = tuple(row[name] for name in keys)
            known = merged.setdefault(key, {name: row[name] for name in keys})
            known.update(row)
        if not merged and not keys:
            merged[()] = {}
        first = len(keys) - len(groups)
        order = sorted(
            merged, key=lambda key: (key[:first], ranks[key[first:]] if query.top else key[first:])
        )
        return [_present(query, merged[key], names) for key in order[: query.rows_max]]

    def _query_ranks(self, query: StatsQuery, groups: Sequence[str]) -> dict[tuple[str, ...], int]:
        """The top groups of the whole range, and the place of each."""
        whole = query._replace(interval="none")
        has_credits = query.top_by in _CREDIT_METRICS
        source = (_credits_source if has_credits else _usage_source)(whole, groups)
        if not source:
            return {}
        names = ", ".join(groups)
        sql = (
            f"SELECT {names} FROM ({source}) AS s GROUP BY {names} "
            f"ORDER BY {_RANKS[query.top_by]} DESC, {names} LIMIT {query.top}"
        )
        rows = self._store.query_rows(f"{sql} SETTINGS {_SHARED}", _parameters(whole))
        return {tuple(row[name] for name in groups): place for place, row in enumerate(rows)}

    def _query_usage(
        self, query: StatsQuery, groups: Sequence[str], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        bucket = INTERVALS[query.interval].format(column="bucket_at")
        keys = ([f"{bucket} AS bucket"] if bucket else []) + list(groups)
        figures = [
            *(sql for metrics, sql in _COSTLY.items() if not set(metrics).isdisjoint(names)),
            *(f"sum(s.{name}) AS {name}" for name in _COUNTS),
            "toString(sum(toInt128(s.cost_units))) AS cost_units",
        ]
        source = _usage_source(query, groups)
        sql = f"SELECT {', '.join([*keys, *figures])} FROM ({source}) AS s"
        return self._grouped(sql, keys, query)

    def _query_credits(self, query: StatsQuery, groups: Sequence[str]) -> list[dict[str, Any]]:
        source = _credits_source(query, groups)
        if not source:
            return []
        keys = (["bucket"] if query.interval != "none" else []) + list(groups)
        sums = ", ".join(f"toString(sum(s.{name})) AS {name}" for name in _CREDITS)
        sql = f"SELECT {''.join(f'{key}, ' for key in keys)}{sums} FROM ({source}) AS s"
        return self._grouped(sql, keys, query)

    def _grouped(self, sql: str, keys: Sequence[str], query: StatsQuery) -> list[dict[str, Any]]:
        names = ", ".join(key.rpartition(" AS ")[2] for key in keys)
        if names:
            sql += f" GROUP BY {names} ORDER BY {names} LIMIT {query.rows_max}"
        return self._store.query_rows(f"{sql} SETTINGS {_settings(query)}", _parameters(query))


def _wanted(query: StatsQuery) -> tuple[str, ...]:
    """The metrics of an answer, in its order."""
    return tuple(name for name in METRICS if name in query.metrics) or METRICS


def _usage_source(query: StatsQuery, groups: Sequence[str]) -> str:
    """Rows of the rollups that answer a query, or of the same SELECT over the facts."""
    columns = ", ".join(("bucket_at", *groups, *ADDITIVE, *MERGED))
    pieces = rollup_pieces(query)
    if pieces:
        return " UNION ALL ".join(
            f"SELECT {columns} FROM tallystick.{table} WHERE "
            + _condition(query, "bucket_at", start, end)
            for table, start, end in pieces
        )
    names = ", ".join(("tenant_id", *ROLLUP_KEYS, "user_id"))
    return fold_facts_sql(
        f"toStartOfMinute(occurred_at) AS bucket_at, {names}",
        f"bucket_at, {names}",
        _condition(query, "occurred_at", query.from_at, query.to_at),
    )


def _credits_source(query: StatsQuery, groups: Sequence[str]) -> str:
    """Sums of the charge lines, each piece written so that a projection answers it."""
    sums = ", ".join(f"sum(toInt128(c.{name})) AS {name}" for name in _CREDITS)
    pieces = []
    for column, start, end in charge_pieces(query):
        bucket = INTERVALS[query.interval].format(column=column)
        keys = ([f"{bucket} AS bucket"] if bucket else []) + list(groups)
        names = [key.rpartition(" AS ")[2] for key in keys]
        pieces.append(
            f"SELECT {''.join(f'{key}, ' for key in keys)}{sums} FROM tallystick.charges AS c "
            f"WHERE {_condition(query, column, start, end)}"
            + (f" GROUP BY {', '.join(names)}" if names else "")
        )
    return " UNION ALL ".join(pieces)


_SHARED = (
    "merge_tree_min_rows_for_concurrent_read = 1024, "
    "merge_tree_min_bytes_for_concurrent_read = 1048576"
)
"""Rows of sets are few and heavy, so threads share even a few thousand of them."""


def _settings(query: StatsQuery) -> str:
    """Users of a tenant are read in their order: what comes behind the first is not read."""
    is_by_user = query.interval == "none" and query.group_by[:1] == ("user",)
    return f"{_SHARED}, optimize_aggregation_in_order = 1" if is_by_user else _SHARED


def check_query(query: StatsQuery) -> None:
    """Raise InvalidInput naming what is not known and what would be."""
    for name in (*query.group_by, *query.filters):
        if name not in DIMENSIONS:
            raise InvalidInput(
                f"unknown dimension {name[:40]!r}; known: {', '.join(DIMENSIONS)}",
                code="unknown_dimension",
                field="group_by",
            )
    for name in query.metrics:
        if name not in METRICS:
            raise InvalidInput(
                f"unknown metric {name[:40]!r}; known: {', '.join(METRICS)}",
                code="unknown_metric",
                field="metrics",
            )
    if query.interval not in INTERVALS:
        raise InvalidInput(
            f"interval must be one of {', '.join(INTERVALS)}",
            code="unknown_interval",
            field="interval",
        )
    if not 0 <= query.top <= TOP_MAX:
        raise InvalidInput(f"top must be from 1 to {TOP_MAX:,}", code="bad_top", field="top")
    if query.top and not query.group_by:
        raise InvalidInput(
            "top ranks groups: name them by group_by", code="bad_top", field="group_by"
        )
    if query.top_by not in _RANKS:
        raise InvalidInput(
            f"cannot rank by {query.top_by[:40]!r}; known: {', '.join(_RANKS)}",
            code="unknown_metric",
            field="top_by",
        )
    if query.from_at >= query.to_at:
        raise InvalidInput("from must be before to", code="empty_range", field="from")


def rollup_pieces(query: StatsQuery) -> list[tuple[str, int, int]]:
    """Which rollups answer a query: (table, start, end) in micros; [] when none can.

    >>> rollup_pieces(StatsQuery(23 * HOUR, 49 * HOUR))[0][0]
    'rollup_hour'
    """
    columns = columns_of(query)
    if query.from_at % MINUTE or query.to_at % MINUTE:
        return []
    if columns <= {"tenant_id", *ROLLUP_KEYS}:
        rollups = [
            (_narrowest(tables, columns), width)
            for width, tables in _ROLLUPS[: _COARSEST[query.interval]]
        ]
        return _cut(query.from_at, query.to_at, rollups)
    is_days = query.from_at % DAY == query.to_at % DAY == 0 and _COARSEST[query.interval] == 3
    if columns <= _USER_COLUMNS and is_days:
        return [("rollup_user", query.from_at, query.to_at)]
    return []


def _narrowest(tables: Sequence[str], columns: set[str]) -> str:
    return next(table for table in tables if columns <= {"tenant_id", *COARSE[table].keys})


def columns_of(query: StatsQuery) -> set[str]:
    """The columns that a query groups or filters by."""
    return {DIMENSIONS[name] for name in (*query.group_by, *query.filters)}


def charge_pieces(query: StatsQuery) -> list[tuple[str, int, int]]:
    """How the charge lines of a query are summed: (bucket, start, end) in micros.

    A line stands at its minute, so a range that begins inside of one begins with the next.
    """
    start, end = (-(-at // MINUTE) * MINUTE for at in (query.from_at, query.to_at))
    if "user" in (*query.group_by, *query.filters):
        return [("bucket_at", start, end)]
    return _cut(start, end, _CHARGE_BUCKETS[: _COARSEST[query.interval]])


def _cut(start: int, end: int, rollups: Sequence[tuple[str, int]]) -> list[tuple[str, int, int]]:
    """Cut [start, end) into whole buckets of the coarsest rollup, and finer ones around them."""
    if start >= end or not rollups:
        return []
    table, width = rollups[-1]
    whole_start, whole_end = -(-start // width) * width, end // width * width
    if whole_start >= whole_end:
        return _cut(start, end, rollups[:-1])
    return [
        *_cut(start, whole_start, rollups[:-1]),
        (table, whole_start, whole_end),
        *_cut(whole_end, end, rollups[:-1]),
    ]


def _condition(query: StatsQuery, column: str, start: int, end: int) -> str:
    clauses = [
        f"{column} >= toDateTime64('{as_text(start)}', 6, 'UTC')",
        f"{column} < toDateTime64('{as_text(end)}', 6, 'UTC')",
    ]
    clauses += [f"{DIMENSIONS[name]} = {{is_{name}:String}}" for name in query.filters]
    if query.among:
        columns = [DIMENSIONS[name] for name in query.group_by]
        clauses += [f"{name} IN {{in_{name}:Array(String)}}" for name in columns]  # by the index
        if len(columns) > 1:  # of all pairs of those values, these
            group = ", ".join(f"toString({name})" for name in columns)
            clauses.append(f"has({{among:Array(Array(String))}}, [{group}])")
    return " AND ".join(clauses)


def _values(query: StatsQuery) -> dict[str, list[str]]:
    """The values of each dimension in the groups to which an answer is held."""
    columns = zip(*query.among, strict=True)
    return {name: sorted(set(found)) for name, found in zip(query.group_by, columns, strict=False)}


def _parameters(query: StatsQuery) -> dict[str, Any]:
    return {
        **{f"is_{name}": value for name, value in query.filters.items()},
        **{f"in_{DIMENSIONS[name]}": found for name, found in _values(query).items()},
        **({"among": [list(one) for one in query.among]} if query.among else {}),
    }


def as_text(micros: int) -> str:
    """Write micros as ClickHouse reads a DateTime64(6) parameter."""
    return to_datetime(micros).strftime("%Y-%m-%d %H:%M:%S.%f")


def micros_of(text: str) -> int:
    """Read a DateTime or DateTime64(6) in UTC as ClickHouse writes it."""
    from datetime import UTC, datetime

    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def _present(query: StatsQuery, row: Row, names: Sequence[str]) -> Row:
    answer: Row = {}
    if query.interval != "none":
        answer["bucket_at"] = format_time(micros_of(row["bucket"]))
    for name in query.group_by:
        answer[name] = row[DIMENSIONS[name]]
    for name in names:
        answer[name] = _FIGURES[name](row)
    return answer


def _count(name: str) -> Figure:
    return lambda row: row.get(name, 0)


def _amount(column: str, asset: Asset) -> Figure:
    return lambda row: format_amount(int(row.get(column, 0)), asset)


def _latency(place: int) -> Figure:
    return lambda row: _rounded(row["latency"][place]) if "latency" in row else None


def _works(row: Row) -> int:
    """What can fail: model calls and tool calls."""
    return int(row.get("calls", 0)) + int(row.get("tool_calls", 0))


_FIGURES: Mapping[str, Figure] = {
    **{name: _count(name) for name in ("runs", "attempts", *_COUNTS)},
    "error_rate": lambda row: _ratio(row.get("errors", 0), _works(row)),
    "error_rate_interval": lambda row: wilson_interval(row.get("errors", 0), _works(row)),
    "cost_usd": _amount("cost_units", USD),
    "cost_coverage": lambda row: _ratio(
        row.get("calls", 0) - row.get("unpriced_calls", 0), row.get("calls", 0)
    ),
    "credits": _amount("credit_units", CREDIT),
    "retry_waste_usd": _amount("waste_cost_units", USD),
    "retry_waste_credits": _amount("waste_credit_units", CREDIT),
    **{name: _latency(place) for place, name in enumerate(_LATENCIES)},
}
"""How each metric is written, from a row of sums."""


_Z = NormalDist().inv_cdf(0.975)


def wilson_interval(events: int, trials: int) -> list[float] | None:
    """The 95% confidence interval of a rate (Wilson, 1927); None without trials.

    >>> wilson_interval(0, 10)
    [0.0, 0.277533]
    """
    if trials <= 0:
        return None
    rate, z2 = events / trials, _Z * _Z
    centre = rate + z2 / (2 * trials)
    spread = _Z * math.sqrt(max(rate * (1 - rate), 0) / trials + z2 / (4 * trials * trials))
    scale = 1 + z2 / trials
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return [round(max(low, 0.0), 6), round(min(high, 1.0), 6)]


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _rounded(value: float | None) -> float | None:
    return round(value, 3) if value is not None and value == value else None
