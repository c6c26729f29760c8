"""Calls in the facts: what was rated for them, and how long answers usually are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tallystick.analytics.horizon import require_kept
from tallystick.analytics.store import within
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import CORRECTIONS, Position
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.enforcement.calls", "facts.sql")
_DELIVERIES_SEEN = 1_000_000
"""Newest deliveries that tell how long answers usually are, however many came in a day."""


class CallFact(NamedTuple):
    """What the facts say of a call."""

    credit_units: int
    """CREDIT/6."""
    cost_units: int
    """USD/9."""
    tokens: int


class CallFacts:
    """Reads the facts of calls."""

    def __init__(
        self, store: ClickHouse, landed: Callable[[], Mapping[int, Position]] = dict
    ) -> None:
        """`landed` tells how far each log partition can be read."""
        self._store = store
        self._landed = landed

    def query_calls(self, runs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], CallFact]:
        """Calls of runs (tenant, run) that have an event, by (tenant, hold)."""
        if not runs:
            return {}
        sql = _SQL["query_call_facts"].format()
        rows = self._store.query_rows(sql, {"runs": list(runs)})
        return {
            (row["tenant_id"], row["hold_id"]): CallFact(
                int(row["credit_units"]), int(row["cost_units"]), int(row["tokens"])
            )
            for row in rows
        }

    def query_cache(
        self, tenant_id: str, from_at: int, to_at: int, dimension: str
    ) -> list[dict[str, Any]]:
        """Cached tokens by model and a dimension (an expression of ours)."""
        require_kept(self._store, from_at, "from /v1/stats (tokens_cache_read)")
        sql = _SQL["query_cache"].format(dimension=dimension)
        return self._store.query_rows(
            sql, {"tenant_id": tenant_id, "from_at": from_at, "to_at": to_at}
        )

    def query_usual_outputs(self) -> list[tuple[str, str, list[int]]]:
        """The newest answers' lengths: (tenant, model, output tokens)."""
        ends = {one: found.offset for one, found in self._landed().items() if one != CORRECTIONS}
        if not ends:
            return []
        starts = {one: max(end - _DELIVERIES_SEEN // len(ends), 0) for one, end in ends.items()}
        condition = within("log_offset", starts, ends)
        rows = self._store.query_rows(_SQL["query_usual_outputs"].format(condition=condition))
        return [(row["tenant_id"], row["model"], list(row["outputs"])) for row in rows]
