"""Runs: the list of them, and what happened in one.

The list reads folded rows, about one a run. It sums few of them: first it looks when as many runs
as it shows began, by that column alone, and then at those that began since. The story of one run
reads its facts in time order, the deliveries that were not originals, and its charge lines; the
ledger's part is added by the caller, who may see the ledger.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tallystick.analytics.horizon import KeptFacts, require_kept
from tallystick.analytics.stats import DIMENSIONS, as_text, micros_of
from tallystick.clock import format_time
from tallystick.errors import InvalidInput, NotFound
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.sql import load_statements
from tallystick.units import CREDIT, USD, format_amount
from tallystick.usage.model import TOKEN_COUNTS

_SQL = load_statements("tallystick.analytics", "runs.sql")
_FILTERS = {
    name: column
    for name, column in DIMENSIONS.items()
    if name
    in {"tenant", "team", "product", "feature", "project", "user", "workflow", "agent"}
    | {"customer_tier", "environment"}
}
_EVENT_FILTERS = {
    name: DIMENSIONS[name] for name in ("model", "provider", "tool", "operation", "error_code")
}
"""What one event of a run must have: all of them together, so an error of a tool is one event."""

_SIGNS = {"from": ">=", "to": "<"}
_OF_RUNS = "by what runs have in common: runs are kept for ever"
_STATUSES = {
    "running": "r.has_completed = 0 AND r.has_failed = 0",
    "completed": "r.has_completed > 0",
    "failed": "r.has_failed > 0",
}
"""Status -> what some row of such a run says."""

_LOOKED_AT = 4
"""Rows looked at first for each run wanted: a run has some while it goes on, and filters leave some
out. When that is too few, eight times as many, and so on."""

LIMIT_MAX = 500
TIMELINE_MAX = 20_000
"""Events, attempts, repeats and children that the story of one run shows."""

_ALL = 2**32 - 1

_DETAILS = (
    "source",
    "provider",
    "model",
    "operation",
    "tool",
    "tool_call_id",
    "request_id",
    "error_code",
    "latency_ms",
    "usage_scope",
    "usage_quality",
    "cost_quality",
)
_COUNTED = (
    "attempts",
    "events",
    "calls",
    "unpriced_calls",
    "tool_calls",
    "errors",
    "late_events",
    "tokens_input",
    "tokens_output",
)
_OF_THE_ROW = frozenset(("sign", "correction_id", "log_partition", "log_offset"))
"""What a row has that its event has not."""


class _Wanted(NamedTuple):
    """Which runs are to be listed, as conditions."""

    of_runs: list[str]
    """On sums over a run's rows."""
    of_begins: list[str]
    """What the row with the run's begin passes: whose it is, and when it began."""
    of_rows: list[str]
    """Each is passed by some row of the run, not all by the same."""
    of_keys: list[str]
    """On tenant and run id alone."""
    parameters: dict[str, Any]


class Runs:
    """Answers questions about runs from ClickHouse."""

    def __init__(self, store: ClickHouse, timeline_max: int = TIMELINE_MAX) -> None:
        self._store = store
        self._timeline_max = timeline_max

    def page(
        self, filters: Mapping[str, str], *, cursor: str | None = None, limit: int = 50
    ) -> dict[str, Any]:
        """Return {"runs": [...], "next_cursor": text or None}, newest first.

        Filters are dimension names and `status` (running, completed, failed). Those of calls
        and tools (model, provider, tool, operation, error_code; "*" is any error) choose runs
        that have an event with all of them; those that have expired are not searched. `from` and
        `to` (micros) are of that event, so that the runs behind a figure of statistics are found,
        or else of the run's start. Raises InvalidInput on an unknown filter, a cursor that is not
        ours, and when the search would begin before the horizon.
        """
        if "from" in filters and not _EVENT_FILTERS.keys().isdisjoint(filters):
            require_kept(self._store, int(filters["from"]), _OF_RUNS)
        wanted = _wanted(filters)
        if cursor:
            started_at, tenant, run_id = _read_cursor(cursor)
            wanted.of_runs.append(
                "(started_at, tenant_id, run_id) < ({at:DateTime64(6)}, {t:String}, {r:String})"
            )
            wanted.of_begins.append("r.started_at <= {at:DateTime64(6)}")
            wanted.parameters.update(at=started_at, t=tenant, r=run_id)
        limit = min(max(limit, 1), LIMIT_MAX)
        rows = self._newest(wanted, limit + 1)
        page = rows[:limit]
        more = len(rows) > len(page)
        return {
            "runs": [_present_run(row) for row in page],
            "next_cursor": _write_cursor(page[-1]) if more and page else None,
        }

    def _newest(self, wanted: _Wanted, limit: int) -> list[dict[str, Any]]:
        """The newest runs, at most `limit`."""
        count = _LOOKED_AT * limit
        while not wanted.of_keys:  # to search events again and again would cost more
            likely = _all([*wanted.of_begins, *wanted.of_rows])
            sql = _SQL["query_start"].format(tests=likely)
            found = self._store.query_rows(sql, {**wanted.parameters, "rows": count})
            if not found:
                break
            since = {"since": found[0]["started_at"]}
            among = _with_row([*wanted.of_begins, "r.started_at >= {since:DateTime64(6)}"])
            began = "started_at >= {since:DateTime64(6)}"  # of others some may be missing
            rows = self._query_runs(
                among, [*wanted.of_runs, began], wanted.parameters | since, limit
            )
            if len(rows) == limit:
                return rows
            count *= 8
        tests = [wanted.of_begins, *([one] for one in wanted.of_rows)]
        conditions = [*(_with_row(one) for one in tests if one), *wanted.of_keys]
        return self._query_runs(_all(conditions), wanted.of_runs, wanted.parameters, limit)

    def _query_runs(
        self, among: str, having: Sequence[str], parameters: Mapping[str, Any], limit: int
    ) -> list[dict[str, Any]]:
        sql = _SQL["query_runs"].format(among=among, having=_all(having))
        return self._store.query_rows(sql, {**parameters, "limit": limit})

    def get(self, run_id: str, tenant_id: str | None = None) -> dict[str, Any]:
        """Return the story of one run.

        Counts and the attempts' sums are over all of it; of more than TIMELINE_MAX events the
        timeline shows the first, and `is_timeline_cut` says so. Events of before `expired_before`
        (None: all are there) are gone, and their attempts; sums of the run have them.

        Without `tenant_id` the run id must belong to one tenant only. Raises NotFound, or
        InvalidInput (`ambiguous_run`) naming that a tenant_id is needed.
        """
        head = self._find(run_id, tenant_id)
        horizon_at = KeptFacts(self._store).query_horizon().horizon_at
        has_expired = micros_of(head["started_at"]) < horizon_at
        tenant = head["tenant_id"]
        parameters = {"tenant": tenant, "run": run_id, "most": self._timeline_max}
        counts = self._store.query_rows(_SQL["query_run_counts"], parameters)[0]
        attempts = self._store.query_rows(_SQL["query_run_attempts"], parameters)
        facts = self._store.query_rows(
            _SQL["query_run_facts"], {**parameters, "most": self._timeline_max + 1}
        )
        others = self._store.query_rows(_SQL["query_run_deliveries"], parameters)
        lines = self._store.query_rows(_SQL["query_run_charges"], parameters)
        children, children_units = self._children(tenant, run_id)
        return {
            **_present_run(head),
            "expired_before": format_time(horizon_at) if has_expired else None,
            "counts": {name: int(count) for name, count in counts.items()},
            "attempts": [_present_attempt(attempt) for attempt in attempts],
            "timeline": [_present_fact(fact) for fact in _standing(facts[: self._timeline_max])],
            "is_timeline_cut": len(facts) > self._timeline_max,
            "duplicates": [_present_delivery(other) for other in others],
            "charge_lines": [_present_line(line) for line in lines],
            "cost_tree": {
                **_cost_tree(head, children[: self._timeline_max], children_units),
                "is_cut": len(children) > self._timeline_max,
            },
        }

    def query_versions(self, since: int, tenant_id: str = "") -> list[tuple[int, int]]:
        """(schema version, events) of what was received from `since` (micros) on."""
        parameters = {"since": as_text(since), "tenant": tenant_id}
        rows = self._store.query_rows(_SQL["query_versions"], parameters)
        return [(int(row["schema_version"]), int(row["events"])) for row in rows]

    def _find(self, run_id: str, tenant_id: str | None) -> dict[str, Any]:
        condition = "run_id = {run:String}"
        parameters: dict[str, Any] = {"run": run_id}
        if tenant_id:
            condition += " AND tenant_id = {tenant:String}"
            parameters["tenant"] = tenant_id
        rows = self._query_runs(condition, [], parameters, 2)
        if not rows:
            raise NotFound(f"no run {run_id[:128]!r} is known", code="unknown_run")
        if len(rows) > 1:
            raise InvalidInput(
                "several tenants have a run of this id; add tenant_id",
                code="ambiguous_run",
                field="tenant_id",
            )
        return rows[0]

    def _children(self, tenant: str, run_id: str) -> tuple[list[dict[str, Any]], int]:
        """Runs below a run, one more than are shown, and what all of them cost."""
        is_below = "({0}parent_run_id = {{run:String}} OR {0}root_run_id = {{run:String}})"
        among = _with_row(["r.tenant_id = {tenant:String}", is_below.format("r.")])
        having = _all(["run_id != {run:String}", is_below.format("")])
        sql = _SQL["query_runs"].format(among=among, having=having)
        parameters = {"tenant": tenant, "run": run_id, "limit": self._timeline_max + 1}
        rows = self._store.query_rows(sql, parameters)
        if len(rows) <= self._timeline_max:
            return rows, sum(int(row["cost_units"]) for row in rows)
        cost = self._store.query_rows(
            _SQL["query_runs_cost"].format(runs=sql), {**parameters, "limit": _ALL}
        )
        return rows, int(cost[0]["cost_units"])


def _wanted(filters: Mapping[str, str]) -> _Wanted:
    wanted = _Wanted([], [], [], [], {})
    of_events = [name for name in _EVENT_FILTERS if name in filters]
    for name, value in filters.items():
        if name == "status":
            if value not in _STATUSES:
                raise InvalidInput(f"status must be one of {', '.join(_STATUSES)}", field="status")
            wanted.of_runs.append("status = {status:String}")
            wanted.of_rows.append(_STATUSES[value])
            wanted.parameters["status"] = value
        elif name in _SIGNS:
            if not of_events:
                wanted.of_runs.append(_within("started_at", name))
                wanted.of_begins.append(_within("r.started_at", name))
            wanted.parameters[f"{name}_at"] = as_text(int(value))
        elif name in _FILTERS:
            test = f"{_FILTERS[name]} = {{is_{name}:String}}"
            wanted.of_runs.append(test)
            (wanted.of_begins if name == "tenant" else wanted.of_rows).append(f"r.{test}")
            wanted.parameters[f"is_{name}"] = value
        elif name in _EVENT_FILTERS:
            continue  # together, below
        else:
            known = ", ".join(("status", "from", "to", *_FILTERS, *_EVENT_FILTERS))
            raise InvalidInput(
                f"unknown filter {name[:40]!r}; known: {known}",
                code="unknown_filter",
                field=name[:40],
            )
    if of_events:
        wanted.of_keys.append(_event_condition(of_events, filters, wanted.parameters))
    return wanted


def _all(conditions: Sequence[str]) -> str:
    return " AND ".join(conditions) or "1"


def _with_row(tests: Sequence[str]) -> str:
    return _SQL["runs_with_row"].format(tests=_all(tests))


def _within(column: str, name: str) -> str:
    return f"{column} {_SIGNS[name]} {{{name}_at:DateTime64(6)}}"


def _event_condition(
    names: Sequence[str], filters: Mapping[str, str], parameters: dict[str, Any]
) -> str:
    """The condition that a run has an event with all these values, in the tenant and the time."""
    tests = []
    for name in names:
        if name == "error_code" and filters[name] == "*":
            tests.append("error_code != ''")
        else:
            tests.append(f"{_EVENT_FILTERS[name]} = {{has_{name}:String}}")
            parameters[f"has_{name}"] = filters[name]
    if "tenant" in filters:
        tests.append("tenant_id = {is_tenant:String}")
    tests += [_within("occurred_at", name) for name in _SIGNS if name in filters]
    return _SQL["runs_with_event"].format(tests=" AND ".join(tests))


def _read_cursor(cursor: str) -> tuple[str, str, str]:
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii"))
        started_at, tenant, run_id = msgspec.json.decode(raw, type=tuple[str, str, str])
        micros_of(started_at)
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise InvalidInput(
            "cursor is not one of ours", code="bad_cursor", field="cursor"
        ) from error
    return started_at, tenant, run_id


def _write_cursor(row: dict[str, Any]) -> str:
    parts = (row["started_at"], row["tenant_id"], row["run_id"])
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode("ascii")


def _present_run(row: dict[str, Any]) -> dict[str, Any]:
    started, last = micros_of(row["started_at"]), micros_of(row["last_event_at"])
    copied = ("run_id", "tenant_id", "status", "parent_run_id", "root_run_id")
    return {
        **{name: row[name] for name in copied},
        **{name: row[column] for name, column in _FILTERS.items() if name != "tenant"},
        "started_at": format_time(started),
        "last_event_at": format_time(last),
        "duration_ms": (last - started) / 1000,
        **{name: int(row[name]) for name in _COUNTED},
        "cost_usd": format_amount(int(row["cost_units"]), USD),
    }


def _standing(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What events count as now: rows that corrections took away are left out.

    A corrected event keeps the offset at which it came; `correction_id` says what made it so.
    """
    times: Counter[tuple[Any, ...]] = Counter()
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    came_at: dict[str, int] = {}
    for row in rows:
        content = tuple(value for name, value in row.items() if name not in _OF_THE_ROW)
        times[content] += row["sign"]
        first.setdefault(content, row)
        if not row["correction_id"]:
            came_at.setdefault(row["event_id"], row["log_offset"])
    return [
        {**row, "log_offset": came_at.get(row["event_id"], row["log_offset"])}
        for content, row in first.items()
        if times[content] > 0
    ]


def _present_fact(fact: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "event_id": fact["event_id"],
        "event_type": fact["event_type"],
        "occurred_at": format_time(micros_of(fact["occurred_at"])),
        "received_at": format_time(micros_of(fact["received_at"])),
        "attempt": fact["attempt"],
        "is_late": bool(fact["is_late"]),
        "log_offset": fact["log_offset"],
    }
    answer.update({name: fact[name] for name in _DETAILS if fact[name] not in ("", None)})
    answer.update({name: fact[name] for name in TOKEN_COUNTS if fact[name]})
    if fact["cost_quality"] not in ("", "none"):
        answer["cost_usd"] = format_amount(int(fact["cost_units"]), USD)
        answer["rate_card_version"] = fact["cost_version"]
    if fact["credit_units"]:
        answer["credits_rated"] = format_amount(int(fact["credit_units"]), CREDIT)
    if fact["correction_id"]:
        answer["corrected_by"] = fact["correction_id"]
    if fact["attrs"]:
        answer["attrs"] = msgspec.json.decode(fact["attrs"])
    return answer


def _present_delivery(other: dict[str, Any]) -> dict[str, Any]:
    return {
        "event_id": other["event_id"],
        "event_type": other["event_type"],
        "kind": other["kind"],
        "received_at": format_time(micros_of(other["received_at"])),
        "log_offset": other["log_offset"],
    }


def _present_line(line: dict[str, Any]) -> dict[str, Any]:
    return {
        "bucket_at": format_time(micros_of(line["bucket_at"])),
        "provider": line["provider"],
        "model": line["model"],
        "tool": line["tool"],
        "credits": format_amount(int(line["credit_units"]), CREDIT),
    }


def _present_attempt(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: int(row[name]) for name in ("attempt", "calls", "tool_calls", "errors")},
        "cost_usd": format_amount(int(row["cost_units"]), USD),
        "started_at": format_time(micros_of(row["started_at"])),
        "ended_at": format_time(micros_of(row["ended_at"])),
    }


def _cost_tree(
    head: dict[str, Any], children: list[dict[str, Any]], children_units: int
) -> dict[str, Any]:
    own = int(head["cost_units"])
    return {
        "own_cost_usd": format_amount(own, USD),
        "total_cost_usd": format_amount(own + children_units, USD),
        "children": [
            {
                "run_id": child["run_id"],
                "parent_run_id": child["parent_run_id"],
                "cost_usd": format_amount(int(child["cost_units"]), USD),
            }
            for child in children
        ],
    }
