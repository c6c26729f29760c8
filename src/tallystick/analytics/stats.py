"""Usage over time and by dimension: the answer to `GET /v1/stats`.

Whole minutes over dimensions of the rollup are read from the rollup; anything else is
folded from the facts by the same SELECT that fills the rollup, so both give one truth.
Credits come from the charge lines, whose sum is what the ledger charged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tallystick.analytics.store import ROLLUP_KEYS, fold_facts_sql
from tallystick.clock import MINUTE, format_time, to_datetime
from tallystick.errors import InvalidInput
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.units import CREDIT, USD, format_amount

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

_ADDITIVE = (
    "events",
    "unknown_events",
    "late_events",
    "runs_failed",
    "calls",
    "unpriced_calls",
    "estimated_calls",
    "tool_calls",
    "errors",
    "tokens_input",
    "tokens_output",
    "tokens_cache_read",
    "tokens_cache_write_5m",
    "tokens_cache_write_1h",
    "tokens_reasoning",
)
_ROLLUP_COLUMNS = {"tenant_id", *ROLLUP_KEYS}
_ROWS_MAX = 10_000


class StatsQuery(NamedTuple):
    """What is asked: [from_at, to_at) in micros, grouped and filtered by dimension names."""

    from_at: int
    to_at: int
    interval: str = "none"
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, str] = {}


class Stats:
    """Answers stats queries from ClickHouse."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    def query(self, query: StatsQuery) -> list[dict[str, Any]]:
        """Return rows ready for JSON: counts as integers, amounts as decimal strings.

        Each row has `bucket_at` (unless the interval is "none"), the grouped dimensions,
        runs, attempts, calls, tool_calls, errors, error_rate, tokens_*, cost_usd,
        cost_coverage, credits and latencies in ms. Raises InvalidInput on an unknown
        dimension or interval.
        """
        check_query(query)
        groups = [DIMENSIONS[name] for name in query.group_by]
        merged: dict[tuple[Any, ...], dict[str, Any]] = {}
        keys = (["bucket"] if query.interval != "none" else []) + groups
        for row in self._query_usage(query, groups):
            merged[tuple(row[key] for key in keys)] = row
        for row in self._query_credits(query, groups):
            key = tuple(row[name] for name in keys)
            known = merged.setdefault(key, {name: row[name] for name in keys})
            known["credit_units"] = row["credit_units"]
        if not merged and not keys:
            merged[()] = {}
        ordered = sorted(merged.items(), key=lambda item: tuple(map(str, item[0])))
        return [_present(query, row) for _, row in ordered]

    def _query_usage(self, query: StatsQuery, groups: Sequence[str]) -> list[dict[str, Any]]:
        bucket = INTERVALS[query.interval].format(column="bucket_at")
        keys = ([f"{bucket} AS bucket"] if bucket else []) + list(groups)
        sums = ", ".join(f"sum(s.{name}) AS {name}" for name in _ADDITIVE)
        sql = (
            f"SELECT {''.join(f'{key}, ' for key in keys)}"
            "uniqExactMerge(s.runs) AS runs, uniqExactMerge(s.attempts) AS attempts, "
            f"{sums}, toString(sum(toInt128(s.cost_units))) AS cost_units, "
            "quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(s.latency) AS latency "
            f"FROM ({self._usage_source(query)}) AS s"
        )
        return self._grouped(sql, keys, query)

    def _usage_source(self, query: StatsQuery) -> str:
        columns = {DIMENSIONS[name] for name in (*query.group_by, *query.filters)}
        is_aligned = query.from_at % MINUTE == 0 and query.to_at % MINUTE == 0
        if is_aligned and columns <= _ROLLUP_COLUMNS:
            return f"SELECT * FROM tallystick.rollup_minute WHERE {_condition(query, 'bucket_at')}"
        names = ", ".join(("tenant_id", *ROLLUP_KEYS, "user_id"))
        return fold_facts_sql(
            f"toStartOfMinute(occurred_at) AS bucket_at, {names}",
            f"bucket_at, {names}",
            _condition(query, "occurred_at"),
        )

    def _query_credits(self, query: StatsQuery, groups: Sequence[str]) -> list[dict[str, Any]]:
        bucket = INTERVALS[query.interval].format(column="bucket_at")
        keys = ([f"{bucket} AS bucket"] if bucket else []) + list(groups)
        sql = (
            f"SELECT {''.join(f'{key}, ' for key in keys)}"
            "toString(sum(toInt128(c.credit_units))) AS credit_units "
            f"FROM tallystick.charges AS c WHERE {_condition(query, 'bucket_at')}"
        )
        return self._grouped(sql, keys, query)

    def _grouped(self, sql: str, keys: Sequence[str], query: StatsQuery) -> list[dict[str, Any]]:
        names = [key.rpartition(" AS ")[2] for key in keys]
        if names:
            sql += f" GROUP BY {', '.join(names)} ORDER BY {', '.join(names)} LIMIT {_ROWS_MAX}"
        else:
            sql += " HAVING count() > 0"
        return self._store.query_rows(sql, _parameters(query))


def check_query(query: StatsQuery) -> None:
    """Raise InvalidInput naming what is not known and what would be."""
    for name in (*query.group_by, *query.filters):
        if name not in DIMENSIONS:
            raise InvalidInput(
                f"unknown dimension {name[:40]!r}; known: {', '.join(DIMENSIONS)}",
                code="unknown_dimension",
                field="group_by",
            )
    if query.interval not in INTERVALS:
        raise InvalidInput(
            f"interval must be one of {', '.join(INTERVALS)}",
            code="unknown_interval",
            field="interval",
        )
    if query.from_at >= query.to_at:
        raise InvalidInput("from must be before to", code="empty_range", field="from")


def _condition(query: StatsQuery, column: str) -> str:
    clauses = [f"{column} >= {{from_at:DateTime64(6)}}", f"{column} < {{to_at:DateTime64(6)}}"]
    clauses += [f"{DIMENSIONS[name]} = {{is_{name}:String}}" for name in query.filters]
    return " AND ".join(clauses)


def _parameters(query: StatsQuery) -> dict[str, Any]:
    times = {"from_at": as_text(query.from_at), "to_at": as_text(query.to_at)}
    return {**times, **{f"is_{name}": value for name, value in query.filters.items()}}


def as_text(micros: int) -> str:
    """Write micros as ClickHouse reads a DateTime64(6) parameter."""
    return to_datetime(micros).strftime("%Y-%m-%d %H:%M:%S.%f")


def micros_of(text: str) -> int:
    """Read a DateTime or DateTime64(6) in UTC as ClickHouse writes it."""
    from datetime import UTC, datetime

    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)


def _present(query: StatsQuery, row: dict[str, Any]) -> dict[str, Any]:
    counts = {name: int(row.get(name, 0)) for name in ("runs", "attempts", *_ADDITIVE)}
    calls, tool_calls = counts["calls"], counts["tool_calls"]
    p50, p95, p99 = row.get("latency") or (None, None, None)
    answer: dict[str, Any] = {}
    if query.interval != "none":
        answer["bucket_at"] = format_time(micros_of(row["bucket"]))
    answer.update({name: row[DIMENSIONS[name]] for name in query.group_by})
    return {
        **answer,
        **counts,
        "error_rate": _ratio(counts["errors"], calls + tool_calls),
        "cost_usd": format_amount(int(row.get("cost_units", 0)), USD),
        "cost_coverage": _ratio(calls - counts["unpriced_calls"], calls),
        "credits": format_amount(int(row.get("credit_units", 0)), CREDIT),
        "latency_ms_p50": _rounded(p50),
        "latency_ms_p95": _rounded(p95),
        "latency_ms_p99": _rounded(p99),
    }


def _ratio(part: int, whole: int) -> float | None:
    return float(round(Decimal(part) / Decimal(whole), 6)) if whole else None


def _rounded(value: float | None) -> float | None:
    return round(value, 3) if value is not None and value == value else None
