"""/v1/stats on many facts: generated in ClickHouse, folded by the product's own rollups."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tallystick.analytics.stats import Stats, StatsQuery
from tallystick.analytics.store import COARSE, FOLDED_FROM_FACTS, FactStore, LinePlan
from tallystick.clock import DAY, HOUR, MINUTE, SystemClock
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse

DAYS = 30
TENANTS, USERS, TEAMS, FEATURES, MODELS, TOOLS = 50, 100_000, 20, 12, 8, 15
PIECE = 1_000_000
QUERIES = 200

IS_RETRIED = "run % 19 = 0"
"""Runs of which the first attempt failed halfway."""

GENERATE = """
INSERT INTO tallystick.facts (sign, tenant_id, charge_key, occurred_at, log_partition, log_offset,
    event_id, event_type, received_at, run_id, attempt, workflow, agent, user_id, team, product,
    feature, customer_tier, environment, provider, model, usage_scope, usage_quality, tokens_input,
    tokens_output, latency_ms, tool, error_code, cost_units, cost_quality, credit_units)
SELECT 1, concat('tenant-', toString(run % {tenants})), concat('run-', toString(run)),
    fromUnixTimestamp64Micro({start} + n * {apart} + (n % 25) * 1000000, 'UTC'),
    0, n, concat('e', toString(n)), type, fromUnixTimestamp64Micro({start}, 'UTC'),
    concat('run-', toString(run)), if({is_retried} AND n % 25 >= 12, 2, 1), 'support', 'helper',
    concat('user-', toString(cityHash64(run) % {users})), concat('team-', toString(run % {teams})),
    'assistant', concat('feature-', toString(run % {features})), ['free', 'pro'][run % 2 + 1],
    'production', if(type = 'token_usage', 'openai', ''),
    if(type = 'token_usage', concat('model-', toString(run % {models})), ''), 'leaf', 'exact',
    if(type = 'token_usage', 1500, 0), if(type = 'token_usage', 200, 0), 100 + n % 900,
    if(type = 'tool_call_finished', concat('tool-', toString(n % {tools})), ''),
    if(n % 97 = 0, 'timeout', ''), if(type = 'token_usage', 4250000, 0), 'exact', 100
FROM (
    SELECT number + {first} AS n, intDiv(n, 25) AS run,
        multiIf(n % 25 = 0, 'run_started', n % 25 = 24, 'run_completed',
                n % 3 = 0, 'tool_call_finished', 'token_usage') AS type
    FROM numbers({piece})
)
"""


NEW_RUNS = """
SELECT concat('tenant-', toString(run % {tenants})) AS tenant,
    concat('run-', toString(run)) AS name, {is_retried} AS is_retried
FROM (SELECT number + intDiv({first}, 25) AS run FROM numbers(intDiv({piece}, 25)))
"""


def ask(total: int, folder: Path) -> list[str]:
    """Make what the folder lacks of so many facts, folded and charged; time what pages ask."""
    folder.mkdir(parents=True, exist_ok=True)
    store = ClickHouse(f"chdb://{folder / 'facts'}")
    migrate_clickhouse(store)
    facts = FactStore(store)
    now = SystemClock().now()
    began = time.perf_counter()
    made = facts.query_watermarks(FOLDED_FROM_FACTS[-1]).get(0, 0)
    total = max(total, made)
    for first in range(made, total, PIECE):
        _make(store, facts, first, total, now // DAY * DAY - DAYS * DAY, now)
    took = time.perf_counter() - began
    latest = store.query_rows(
        "SELECT toUnixTimestamp64Micro(max(occurred_at)) AS latest FROM tallystick.facts"
    )
    lines = _time_queries(Stats(store), int(latest[0]["latest"]))
    store.close()
    rss = psutil.Process().memory_info().rss / 1e6
    return [
        f"## /v1/stats on {total:,} facts over {DAYS} days",
        "",
        f"{TENANTS} tenants, {USERS:,} users, {TEAMS} teams, {FEATURES} features, {MODELS} models, "
        f"{TOOLS} tools, 25 events a run. {total - made:,} of them made and folded "
        f"in {took:.0f} s, {PIECE:,} at a time, one thread; {rss:,.0f} MB RSS after.",
        "",
        "| query | p50 | p95 | slowest |",
        "| --- | --- | --- | --- |",
        *lines,
        "",
    ]


def _make(
    store: ClickHouse, facts: FactStore, first: int, total: int, start: int, now: int
) -> None:
    """The next piece, folded while its parts are new: later, they are merged with all others."""
    piece = min(PIECE, total - first)
    sizes = {
        "tenants": TENANTS, "users": USERS, "teams": TEAMS, "features": FEATURES, "models": MODELS,
        "tools": TOOLS, "is_retried": IS_RETRIED, "first": first, "piece": piece,
    }  # fmt: skip
    store.command(GENERATE.format(**sizes, start=start, apart=(now - start) // total))
    ends = {0: first + piece}
    for table in FOLDED_FROM_FACTS:
        facts.fold_facts(table, facts.query_watermarks(table), ends)
    for table in COARSE:
        facts.fold_deltas(table, facts.query_watermarks(table), ends)
    rows = store.query_rows(NEW_RUNS.format(**sizes))
    runs = [(row["tenant"], row["name"]) for row in rows]
    wasted = [(row["tenant"], row["name"], 1) for row in rows if row["is_retried"]]
    facts.post_lines(runs, LinePlan(wasted, [], wasted), now, new=runs)


def _time_queries(stats: Stats, now: int) -> list[str]:
    rng = random.Random(1)
    minute = now // MINUTE * MINUTE
    month, today = now // DAY * DAY - DAYS * DAY, now // DAY * DAY

    def tenant() -> dict[str, str]:
        return {"tenant": f"tenant-{rng.randrange(TENANTS)}"}

    def user() -> dict[str, str]:
        return {**tenant(), "user": f"user-{rng.randrange(USERS)}"}

    shapes: dict[str, Callable[[], StatsQuery]] = {
        "30 days, totals": lambda: StatsQuery(month, minute),
        "30 days by day and model": lambda: StatsQuery(month, minute, "day", ("model",)),
        "the same, cost alone (a chart of the overview)": lambda: StatsQuery(
            month, minute, "day", ("model",), metrics=("cost_usd",)
        ),
        "30 days by day, one tenant": lambda: StatsQuery(month, minute, "day", (), tenant()),
        "30 days by team and feature": lambda: StatsQuery(
            month, minute, "none", ("team", "feature")
        ),
        "7 days by hour, one tenant, by tool": lambda: StatsQuery(
            minute - 7 * DAY, minute, "hour", ("tool",), tenant()
        ),
        "3 hours by minute, one tenant": lambda: StatsQuery(
            minute - 3 * HOUR, minute, "minute", (), tenant()
        ),
        "errors of 24 hours by model, tool, tier, workflow": lambda: StatsQuery(
            minute - DAY, minute, "none", ("model", "tool", "customer_tier", "workflow")
        ),
        "30 days by day, one user": lambda: StatsQuery(month, today, "day", (), user()),
        "30 days, the 50 users of one tenant that cost most": lambda: StatsQuery(
            month, today, "none", ("user",), tenant(), top=50
        ),
        "30 days, users of one tenant (10,000 rows)": lambda: StatsQuery(
            month, today, "none", ("user",), tenant()
        ),
    }
    lines, every = [], []
    for name, make in shapes.items():
        stats.query(make())  # the first one reads from disk
        took = []
        for _ in range(QUERIES // len(shapes)):
            began = time.perf_counter()
            stats.query(make())
            took.append((time.perf_counter() - began) * 1000)
        took.sort()
        every += took
        lines.append(_line(name, took))
    every.sort()
    return [*lines, _line("**all of them**", every)]


def _line(name: str, took: list[float]) -> str:
    middle, high = took[len(took) // 2], took[int(len(took) * 0.95)]
    return f"| {name} | {middle:,.0f} ms | {high:,.0f} ms | {took[-1]:,.0f} ms |"
