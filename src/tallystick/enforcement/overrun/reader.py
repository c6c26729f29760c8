"""Where series and costs come from: facts and rollups in ClickHouse.

A step reads the facts that landed since the last one, by their log offsets (an index serves
that), folded to minutes and scopes on the server; late events and corrections arrive as signed
deltas like any other. It never reads past what the sink has landed. History for baselines is
read once, at the start, from the hourly rollup.

Facts and not the minute rollup: that one knows neither users, keys nor attempts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from tallystick.analytics.horizon import require_kept
from tallystick.analytics.stats import as_text
from tallystick.analytics.store import Offsets, within
from tallystick.clock import HOUR, MINUTE, SECOND
from tallystick.enforcement.overrun.drivers import Cell, Used
from tallystick.enforcement.overrun.model import SeriesKey
from tallystick.enforcement.overrun.series import Change, Point
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import Positions
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.enforcement.overrun", "reader.sql")
SCOPES_PER_MINUTE_MAX = 5_000
"""Values of one dimension of one tenant that one step takes in for one minute."""

_COLUMNS = {
    "tenant": "tenant_id",
    "key": "JSONExtractString(attrs, 'tallystick_key')",
    "user": "user_id",
    "feature": "feature",
    "model": "model",
    "team": "team",
    "project": "project_id",
    "tool": "tool",
    "product": "product",
    "provider": "provider",
    "workflow": "workflow",
    "environment": "environment",
    "agent": "agent",
}


class SeriesReader(Protocol):
    """Deltas of minutes, and the hours before them."""

    def landed(self) -> Offsets:
        """How far each log partition can be read."""
        ...

    def changes(self, starts: Offsets, ends: Offsets) -> list[Change]:
        """What facts with offsets in [starts, ends) add to minutes."""
        ...

    def recent(self, since: int, ends: Offsets) -> list[Change]:
        """What facts that occurred since a time, with offsets below the ends, add to minutes."""
        ...

    def hours(self, from_at: int, to_at: int) -> Iterator[tuple[SeriesKey, int, Point]]:
        """Whole hours of the past: (series, hour number, sums)."""
        ...


class FactSeries:
    """The reader on ClickHouse."""

    def __init__(self, store: ClickHouse, positions: Positions) -> None:
        self._store = store
        self._positions = positions

    def landed(self) -> Offsets:
        """How far each log partition can be read: what the sink has landed."""
        landed = self._positions.load("sink")
        return {partition: position.offset for partition, position in landed.items()}

    def changes(self, starts: Offsets, ends: Offsets) -> list[Change]:
        """What facts with offsets in [starts, ends) add to minutes."""
        return self._changes(within("log_offset", starts, ends))

    def recent(self, since: int, ends: Offsets) -> list[Change]:
        """What facts that occurred since a time, with offsets below the ends, add to minutes."""
        before = within("log_offset", {}, ends)
        return self._changes(
            f"occurred_at >= toDateTime64('{as_text(since)}', 6, 'UTC') AND ({before})"
        )

    def hours(self, from_at: int, to_at: int) -> Iterator[tuple[SeriesKey, int, Point]]:
        """Whole hours of the past: (series, hour number, sums)."""
        arguments = {
            "from_at": as_text(from_at),
            "to_at": as_text(to_at),
            "most": SCOPES_PER_MINUTE_MAX,
        }
        for row in self._store.query_rows(_SQL["query_hours"], arguments):
            yield _key(row), int(row["hour_at"]) * SECOND // HOUR, _point(row)

    def _changes(self, condition: str) -> list[Change]:
        sql = _SQL["query_changes"].format(condition=condition)
        rows = self._store.query_rows(sql, {"most": SCOPES_PER_MINUTE_MAX})
        return [
            Change(_key(row), int(row["minute_at"]) * SECOND // MINUTE, _point(row)) for row in rows
        ]


class Costs(NamedTuple):
    """What a scope used in a range: by cell of the mix, and by value of each dimension."""

    cells: Mapping[Cell, Used]
    by_dimension: Mapping[str, Mapping[str, int]]


class CostReader:
    """Reads what the driver decomposition compares."""

    def __init__(self, store: ClickHouse) -> None:
        self._store = store

    def costs(self, tenant_id: str, scope: Mapping[str, str], from_at: int, to_at: int) -> Costs:
        """What a tenant's scope used in [from, to); InvalidInput when facts of then expired."""
        require_kept(self._store, from_at, "from /v1/stats, by the same dimensions")
        known = {name: value for name, value in scope.items() if name in _COLUMNS}
        clauses = [
            "tenant_id = {tenant:String}",
            "occurred_at >= {from_at:DateTime64(6)}",
            "occurred_at < {to_at:DateTime64(6)}",
            "event_type != 'data.import.error'",
            *(f"{_COLUMNS[name]} = {{is_{name}:String}}" for name in known),
        ]
        arguments: dict[str, Any] = {
            "tenant": tenant_id,
            "from_at": as_text(from_at),
            "to_at": as_text(to_at),
            **{f"is_{name}": value for name, value in known.items()},
        }
        condition = " AND ".join(clauses)
        cells: dict[Cell, Used] = {
            (row["provider"], row["model"], row["tool"], row["feature"]): Used(
                *(int(row[name]) for name in Used._fields)
            )
            for row in self._query("query_cells", condition, arguments)
        }
        by_dimension: dict[str, dict[str, int]] = {}
        for row in self._query("query_costs", condition, arguments):
            values = by_dimension.setdefault(row["dimension"], {})
            values[row["scope_value"]] = int(row["cost_units"])
        return Costs(cells, by_dimension)

    def _query(
        self, name: str, condition: str, arguments: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        return self._store.query_rows(_SQL[name].replace("{condition}", condition), arguments)


def _key(row: Mapping[str, Any]) -> SeriesKey:
    return SeriesKey(row["tenant_id"], row["dimension"], row["scope_value"])


def _point(row: Mapping[str, Any]) -> Point:
    return Point(*(int(row.get(name, 0)) for name in Point._fields))
