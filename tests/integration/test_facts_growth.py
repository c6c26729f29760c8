"""Questions to the facts read what they ask about, however long the history is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tallystick.analytics.runs import Runs
from tallystick.analytics.store import FactStore
from tallystick.plumbing.clickhouse import ClickHouse

MANY = 20_000
START = 1_790_000_000_000_000
MINUTE = 60_000_000


class Bounded(ClickHouse):
    """ClickHouse that refuses queries which take more than is allowed."""

    def __init__(self, store: ClickHouse, settings: str) -> None:
        self._store = store
        self._settings = settings

    def query_rows(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        return self._store.query_rows(f"{sql} SETTINGS {self._settings}", parameters)


SUMS_FEW = "max_rows_to_group_by = 2000, group_by_overflow_mode = 'throw'"


def moment(minutes: str | int) -> str:
    """A time so many minutes after the first run."""
    return f"fromUnixTimestamp64Micro(toInt64({START} + ({minutes}) * {MINUTE}), 'UTC')"


@pytest.fixture(scope="module")
def history(clickhouse: ClickHouse) -> Iterator[ClickHouse]:
    """Runs of two hours each, one begun a minute; each was folded in two pieces."""
    FactStore(clickhouse).wipe()
    for piece in (0, 1):
        clickhouse.command(f"""
            INSERT INTO tallystick.runs (tenant_id, run_id, log_partition, started_at,
                last_event_at, has_completed, has_failed, user_id, team, root_run_id, events,
                cost_units)
            SELECT if(number % 4 = 0, 'small', 'large'), hex(sipHash64(number)), {piece},
                {moment(f"number + {piece * 60}")}, {moment(f"number + {piece * 120}")},
                {piece}, {piece} AND number % 500 = 1, concat('u', toString(number % 1000)),
                if({piece}, 'search', ''), if(number % 4000 < 8, 'root', ''), 1, number
            FROM numbers({MANY})""")
    yield clickhouse
    FactStore(clickhouse).wipe()


def listed(runs: Runs, filters: dict[str, str]) -> list[tuple[str, str]]:
    """The first pages: (run, when it began)."""
    found: list[tuple[str, str]] = []
    cursor: str | None = None
    for _ in range(3):
        page = runs.page(filters, cursor=cursor, limit=20)
        found += [(one["run_id"], one["started_at"]) for one in page["runs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return found


def expected(store: ClickHouse, condition: str) -> list[str]:
    rows = store.query_rows(
        "SELECT run_id FROM tallystick.runs AS r GROUP BY tenant_id, run_id "
        f"HAVING {condition} ORDER BY min(r.started_at) DESC, tenant_id DESC, run_id DESC LIMIT 60"
    )
    return [row["run_id"] for row in rows]


@pytest.mark.parametrize(
    ("filters", "condition"),
    [
        ({}, "1"),
        ({"tenant": "small"}, "tenant_id = 'small'"),
        ({"tenant": "large", "team": "search"}, "tenant_id = 'large'"),
        ({"user": "u7"}, "max(r.user_id) = 'u7'"),
        ({"status": "completed"}, "1"),
        ({"to": str(START + 5_000 * MINUTE)},
         f"min(r.started_at) < {moment(5_000)}"),
    ],
)  # fmt: skip
def test_a_list_of_runs_sums_few_of_them(
    history: ClickHouse, filters: dict[str, str], condition: str
) -> None:
    found = listed(Runs(Bounded(history, SUMS_FEW)), filters)
    assert [run_id for run_id, _ in found] == expected(history, condition)


@pytest.mark.parametrize(
    ("filters", "condition"),
    [
        ({"status": "failed"}, "max(r.has_completed) = 0 AND max(r.has_failed) > 0"),
        ({"status": "running"}, "max(r.has_completed) = 0 AND max(r.has_failed) = 0"),
        ({"user": "nobody"}, "0"),
        ({"team": ""}, "0"),
        ({"from": str(START + (MANY - 9) * MINUTE), "tenant": "large"},
         f"tenant_id = 'large' AND min(r.started_at) >= fromUnixTimestamp64Micro("
         f"{START + (MANY - 9) * MINUTE}, 'UTC')"),
    ],
)  # fmt: skip
def test_what_few_or_no_runs_are_is_searched_to_the_end(
    history: ClickHouse, filters: dict[str, str], condition: str
) -> None:
    found = listed(Runs(history), filters)
    assert [run_id for run_id, _ in found] == expected(history, condition)


def test_the_story_of_a_run_sums_only_the_runs_below_it(history: ClickHouse) -> None:
    runs = Runs(Bounded(history, SUMS_FEW))
    children, cost_units = runs._children("large", "root")
    numbers = [number for number in range(MANY) if number % 4000 < 8 and number % 4]
    assert (len(children), cost_units) == (len(numbers), 2 * sum(numbers))
