"""Causes: the answer to "what drove this change", for an overrun or for any two ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystick.clock import HOUR, MINUTE, format_time
from tallystick.enforcement.overrun.drivers import Decomposition, contributions, decompose
from tallystick.enforcement.overrun.model import Overrun
from tallystick.enforcement.overrun.reader import CostReader, Costs
from tallystick.errors import InvalidInput
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.units import USD, format_amount

Range = tuple[int, int]
"""[from, to) in micros."""

_WEEK = 168 * HOUR
_VALUES_SHOWN = 10


class Causes:
    """Compares two ranges of a scope's facts."""

    def __init__(self, store: ClickHouse) -> None:
        self._reader = CostReader(store)

    def of_overrun(self, overrun: Overrun) -> dict[str, Any] | None:
        """What drove an overrun: against the same time a week before, or else just before.

        None when the facts of then have expired.
        """
        try:
            return self._of_overrun(overrun)
        except InvalidInput as error:
            if error.code != "facts_expired":
                raise
            return None

    def _of_overrun(self, overrun: Overrun) -> dict[str, Any]:
        from_at = overrun.since // MINUTE * MINUTE
        to_at = max((overrun.last_at // MINUTE + 1) * MINUTE, from_at + MINUTE)
        scope = {} if overrun.dimension == "tenant" else {overrun.dimension: overrun.value}
        after = self._reader.costs(overrun.tenant_id, scope, from_at, to_at)
        ranges = [(from_at - _WEEK, to_at - _WEEK), (from_at - (to_at - from_at), from_at)]
        for before_range in ranges:
            before = self._reader.costs(overrun.tenant_id, scope, *before_range)
            if any(before.cells.values()):
                break
        return _answer(before, after, before_range, (from_at, to_at))

    def compare(
        self, tenant_id: str, scope: Mapping[str, str], before: Range, after: Range
    ) -> dict[str, Any]:
        """What drove the change between two ranges."""
        costs = [self._reader.costs(tenant_id, scope, *range_) for range_ in (before, after)]
        return _answer(costs[0], costs[1], before, after)


def _answer(before: Costs, after: Costs, before_range: Range, after_range: Range) -> dict[str, Any]:
    found = decompose(before.cells, after.cells)
    ranked = sorted(found.effects.items(), key=lambda one: -abs(one[1]))
    return {
        "from": format_time(after_range[0]),
        "to": format_time(after_range[1]),
        "compare_from": format_time(before_range[0]),
        "compare_to": format_time(before_range[1]),
        "before_usd": format_amount(found.before_units, USD),
        "after_usd": format_amount(found.after_units, USD),
        "difference_usd": format_amount(found.difference_units, USD),
        "effects": {name: format_amount(units, USD) for name, units in ranked},
        "contributions": _contributions(before, after),
        "summary": _summary(found, before, after),
    }


def _contributions(before: Costs, after: Costs) -> dict[str, list[dict[str, str]]]:
    shown = {}
    for dimension in sorted(before.by_dimension.keys() | after.by_dimension.keys()):
        rows = contributions(
            before.by_dimension.get(dimension, {}),
            after.by_dimension.get(dimension, {}),
            most=_VALUES_SHOWN,
        )
        shown[dimension] = [
            {
                "value": row.value,
                "before_usd": format_amount(row.before_units, USD),
                "after_usd": format_amount(row.after_units, USD),
                "difference_usd": format_amount(row.difference_units, USD),
            }
            for row in rows
        ]
    return shown


def _summary(found: Decomposition, before: Costs, after: Costs) -> str:
    """One sentence: the greatest effect, and the named values that moved most."""
    if not found.difference_units:
        return "the cost did not change"
    effect, units = max(found.effects.items(), key=lambda one: abs(one[1]))
    tops = []
    for dimension in ("key", "user", "feature", "model", "tool"):
        rows = contributions(
            before.by_dimension.get(dimension, {}), after.by_dimension.get(dimension, {}), most=1
        )
        if (
            rows
            and rows[0].value
            and abs(rows[0].difference_units) * 2 > abs(found.difference_units)
        ):
            tops.append(f"{dimension} {rows[0].value}")
    where = f", mostly of {', '.join(tops)}" if tops else ""
    return (
        f"{format_amount(found.difference_units, USD)} USD, most of it {effect.replace('_', ' ')} "
        f"({format_amount(units, USD)} USD){where}"
    )
