"""What the overview shows, gathered from stats and freshness."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from tallystick.analytics.stats import StatsQuery
from tallystick.api.services import Services
from tallystick.clock import DAY, HOUR, MINUTE
from tallystick.errors import InvalidInput

_SERIES_MAX = 6
_OTHERS = "others"
_ROWS_SHOWN = 12
_OF_A_MODEL = (
    *("calls", "unpriced_calls", "tokens_input", "tokens_output", "cost_usd", "credits"),
    "latency_ms_p95",
)
_OF_A_TOOL = ("tool_calls", "errors", "error_rate", "latency_ms_p95")


class Range(NamedTuple):
    """How far back, and in which steps."""

    length: int
    interval: str


RANGES = {
    "1h": Range(HOUR, "minute"),
    "24h": Range(DAY, "hour"),
    "7d": Range(7 * DAY, "hour"),
    "30d": Range(30 * DAY, "day"),
}


def build_overview(
    services: Services, span: str, tenant: str, *, is_operator: bool
) -> dict[str, Any]:
    """Gather everything for one range and tenant ("" is all).

    Freshness and the names of other tenants are for the operator.
    """
    if span not in RANGES:
        raise InvalidInput(f"range must be one of {', '.join(RANGES)}", field="range")
    chosen = RANGES[span]
    to_at = (services.clock.now() // MINUTE + 1) * MINUTE
    from_at = to_at - chosen.length
    filters = {"tenant": tenant} if tenant else {}

    def ask(
        *group_by: str, interval: str = "none", metrics: tuple[str, ...] = ()
    ) -> list[dict[str, Any]]:
        query = StatsQuery(from_at, to_at, interval, group_by, filters, metrics)
        return services.stats.query(query)

    def over_time(dimension: str | None, figure: str) -> dict[str, Any]:
        group_by = (dimension,) if dimension else ()
        rows = ask(*group_by, interval=chosen.interval, metrics=(figure,))
        return _over_time(rows, dimension, figure)

    tools = [row for row in ask("tool", metrics=_OF_A_TOOL) if row["tool"]]
    everyone = StatsQuery(from_at, to_at, "none", ("tenant",), metrics=("events",))
    rows = services.stats.query(everyone) if is_operator else []
    return {
        "span": span,
        "tenant": tenant,
        "tenants": sorted({*(row["tenant"] for row in rows), tenant} - {""}),
        "total": (ask() or [{}])[0],
        "freshness": services.freshness.report() if is_operator else None,
        "charts": {
            "cost_by_model": over_time("model", "cost_usd"),
            "cost_by_feature": over_time("feature", "cost_usd"),
            "cost_by_team": over_time("team", "cost_usd"),
            "credits": over_time(None, "credits"),
            "calls": over_time("model", "calls"),
            "errors_by_tool": _error_rates(tools),
        },
        "models": _top([row for row in ask("model", metrics=_OF_A_MODEL) if row["model"]]),
        "tools": sorted(tools, key=lambda row: -row["tool_calls"])[:_ROWS_SHOWN],
        "runs": services.runs.page(filters, limit=_ROWS_SHOWN)["runs"],
    }


def _top(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -Decimal(row["cost_usd"]))[:_ROWS_SHOWN]


def _over_time(rows: list[dict[str, Any]], dimension: str | None, figure: str) -> dict[str, Any]:
    """Series over time: the largest by name, the rest as one."""
    labels = sorted({row["bucket_at"] for row in rows})
    place = {label: index for index, label in enumerate(labels)}
    sums: dict[str, Decimal] = {}
    for row in rows:
        name = row[dimension] if dimension else figure
        sums[name] = sums.get(name, Decimal(0)) + Decimal(row[figure])
    named = [name for name in sorted(sums, key=lambda name: -sums[name]) if name and sums[name]]
    shown = named[:_SERIES_MAX]
    values = {name: [0.0] * len(labels) for name in [*shown, _OTHERS]}
    for row in rows:
        name = row[dimension] if dimension else figure
        series = values[name if name in values else _OTHERS]
        series[place[row["bucket_at"]]] += float(row[figure])
    return {
        "labels": [label[:16].replace("T", " ") for label in labels],
        "series": [
            {"name": name, "values": series} for name, series in values.items() if any(series)
        ],
    }


def _error_rates(tools: list[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(tools, key=lambda row: -(row["error_rate"] or 0))[:_ROWS_SHOWN]
    rates = [round(100 * (row["error_rate"] or 0), 2) for row in ordered]
    return {
        "labels": [row["tool"] for row in ordered],
        "series": [{"name": "errors %", "values": rates}],
    }
