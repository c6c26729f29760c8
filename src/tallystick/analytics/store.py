"""Facts and rollups in ClickHouse: appends that can be repeated after a crash.

A fact is appended once because recovery reads back which offsets already landed. A rollup
row carries the last offset it counts, and an INSERT into a rollup is one part (it lands
whole or not at all), so the greatest offset present says where to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from tallystick.clock import to_datetime
from tallystick.errors import LeaseLost
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.sql import load_statements
from tallystick.usage.model import TOKEN_COUNTS

if TYPE_CHECKING:
    import pyarrow as pa  # only who writes facts loads it

_SQL = load_statements("tallystick.analytics", "store.sql")

RUN_KEYS = (
    "team",
    "product",
    "feature",
    "project_id",
    "workflow",
    "agent",
    "customer_tier",
    "environment",
)
"""Dimensions that usually do not vary inside a run."""

MODEL_KEYS = (*RUN_KEYS, "provider", "model")
"""The same and those of a model call."""

ROLLUP_KEYS = (*MODEL_KEYS, "tool", "operation", "error_code")
"""Dimensions of the minute rollup besides the bucket and the tenant."""

LINE_KEYS = ("bucket_at", *ROLLUP_KEYS, "user_id")
"""What tells two lines of a run's charge apart."""

USER_KEYS = ("user_id", "provider", "model", "tool", "error_code")
"""Dimensions of the rollup of users besides the bucket and the tenant."""

ADDITIVE = (
    "events",
    "unknown_events",
    "late_events",
    "runs_failed",
    "calls",
    "unpriced_calls",
    "estimated_calls",
    "tool_calls",
    "errors",
    *TOKEN_COUNTS,
    "cost_units",
)
"""Sums of a rollup row, all signed integers."""

MERGED = ("first_attempts", "retried_runs", "retries", "latency")
"""States of a rollup row: three sets and a sketch."""


class Coarse(NamedTuple):
    """What a rollup sums over: the function of its bucket and its dimensions."""

    bucket: str
    keys: tuple[str, ...]


COARSE: Mapping[str, Coarse] = {
    "rollup_minute": Coarse("toStartOfMinute", ROLLUP_KEYS),
    "rollup_hour": Coarse("toStartOfHour", ROLLUP_KEYS),
    "rollup_hour_model": Coarse("toStartOfHour", MODEL_KEYS),
    "rollup_day": Coarse("toStartOfDay", ROLLUP_KEYS),
    "rollup_day_model": Coarse("toStartOfDay", MODEL_KEYS),
    "rollup_day_run": Coarse("toStartOfDay", RUN_KEYS),
}
"""Rollups by time, each with its bucket and its dimensions."""

FOLDED_FROM_FACTS = ("rollup_minute", "rollup_delta", "runs", "rollup_user")
FOLDED_FROM_DELTAS = tuple(table for table in COARSE if table not in FOLDED_FROM_FACTS)
DERIVED_TABLES = ("facts", "deliveries", "charges", *FOLDED_FROM_FACTS, *FOLDED_FROM_DELTAS)
_OFFSETS_PER_FOLD = {"rollup_user": 1_000_000}
_OFFSETS_PER_FOLD_ELSE = 200_000
ONE_PART = (
    "SETTINGS max_threads = 1, max_insert_threads = 1, "
    "min_insert_block_size_rows = 1000000000, min_insert_block_size_bytes = 0"
)
"""An INSERT of a SELECT is cut into parts of a million rows or 256 MB, and a crash between them
would lose the second: the first says already how far the whole has come."""

_ALWAYS = "1"
SINCE_HORIZON = "occurred_at >= (SELECT max(horizon_at) FROM tallystick.horizon)"
"""The condition that a fact is one of tallystick.kept_facts."""

_HORIZON = "(SELECT toUnixTimestamp64Micro(max(horizon_at)) FROM tallystick.horizon)"
_DELTAS_KEPT = 1_000_000
"""Offsets behind the slowest rollup whose deltas are kept."""

RunKey = tuple[str, str]
"""(tenant_id, charge_key)."""

Attempt = tuple[str, str, int]
"""(tenant_id, charge_key, attempt)."""


class LinePlan(NamedTuple):
    """What becomes of the usage of runs' attempts in their charge lines: charged, but for these."""

    free: Sequence[Attempt]
    late_free: Sequence[Attempt]
    """Of the charged ones, those that are not charged for what came late."""
    wasted: Sequence[Attempt]


def as_lines(rows: Iterable[Sequence[Any]]) -> str:
    r"""Rows as one text of a line each: ClickHouse reads that three times faster than arrays.

    Identifiers hold no control characters (`tallystick.events.rules`), so nothing is escaped.
    """
    return "\n".join("\t".join(map(str, row)) for row in rows)


def _is_charged(plan: LinePlan) -> str:
    """The condition that an event of an attempt is charged."""
    conditions = ["true"]
    if plan.free:
        conditions.append(f"NOT {_is_among('free')}")
    if plan.late_free:
        conditions.append(f"NOT (is_late AND {_is_among('late_free')})")
    return " AND ".join(conditions)


def _is_among(name: str) -> str:
    return f"attempt_key IN (SELECT arrayJoin(splitByChar('\\n', {{{name}:String}})))"


class Past(NamedTuple):
    """What is known of a run's time before the horizon, whose facts are gone."""

    credit_units: int
    """Charged for it, for ever."""
    began_at: int | None
    attempt_last: int
    is_failed: bool


Offsets = dict[int, int]
"""Log partition -> an offset."""


def fold_facts_sql(keys: str, group_keys: str, condition: str) -> str:
    """The SELECT that folds facts into rollup rows, for any keys and condition."""
    select, _, _ = _SQL["fold_facts"].rpartition("GROUP BY {keys}")
    return select.format(keys=keys, condition=condition) + f"GROUP BY {group_keys}"


def _delta_select(condition: str) -> str:
    names = f"tenant_id, {', '.join(ROLLUP_KEYS)}, log_partition"
    return fold_facts_sql(
        f"toStartOfMinute(occurred_at) AS bucket_at, {names}", f"bucket_at, {names}", condition
    )


def _user_select(condition: str) -> str:
    names = f"tenant_id, {', '.join(USER_KEYS)}, log_partition"
    return fold_facts_sql(
        f"toStartOfDay(occurred_at) AS bucket_at, {names}", f"bucket_at, {names}", condition
    )


def _coarse_select(table: str, condition: str) -> str:
    bucket, keys = COARSE[table]
    return _SQL["fold_delta"].format(
        bucket=bucket,
        dimensions=", ".join(keys),
        sums=", ".join(f"sum(d.{name}) AS {name}" for name in ADDITIVE),
        condition=condition,
    )


def within(column: str, starts: Offsets, ends: Offsets) -> str:
    """The condition that a row's offset is in [start, end) of its partition."""
    return " OR ".join(
        f"(log_partition = {partition} AND {column} >= {starts.get(partition, 0)} "
        f"AND {column} < {end})"
        for partition, end in sorted(ends.items())
    )


class FactStore:
    """Reads and appends facts, deliveries, rollups and charge lines."""

    def __init__(
        self, store: ClickHouse, fence: Callable[[], Mapping[str, int]] | None = None
    ) -> None:
        """`fence` gives the leases (name -> epoch) under which this process writes.

        An insert lands only while ClickHouse has heard of no later owner of any of them.
        """
        self._store = store
        self._fence = fence
        self._columns: dict[str, list[tuple[str, str]]] = {}

    def query_landed_until(self, partition: int, since: int) -> int:
        """The offset after the last one that landed, from `since` on; 0 when none did."""
        arguments = {"partition": partition, "since": since}
        rows = self._store.query_rows(_SQL["query_landed_until"], arguments)
        return int(rows[0]["landed_until"]) if rows else 0

    def query_landed_offsets(self, table: str, partition: int, start: int, end: int) -> set[int]:
        """Offsets in [start, end) that `table` (facts or deliveries) already holds."""
        rows = self._store.query_rows(
            _SQL["query_landed"].format(table=table),
            {"partition": partition, "start": start, "end": end},
        )
        return {row["log_offset"] for row in rows}

    def query_landed_events(
        self, partition: int, start: int, end: int
    ) -> dict[int, tuple[str, str]]:
        """What landed at each offset in [start, end): (tenant, event id)."""
        rows = self._store.query_rows(
            _SQL["query_landed_events"], {"partition": partition, "start": start, "end": end}
        )
        return {int(row["log_offset"]): (row["tenant_id"], row["event_id"]) for row in rows}

    def append(self, table: str, rows: pa.Table) -> None:
        """Append rows; on disk when this returns."""
        if self._fence is None:
            self._store.insert_arrow(table, rows)
            return
        types = dict(self._columns_of(table))
        structure = ", ".join(f"{name} {types[name]}" for name in rows.column_names)
        structure = structure.replace("\\", "\\\\").replace("'", "\\'")
        self._write(
            lambda may_write: self._store.insert_arrow_if(table, structure, rows, may_write)
        )

    def announce(self, epochs: Mapping[str, int]) -> None:
        """Fence off earlier owners of leases: none of their inserts begins after this."""
        values = ", ".join(f"('{name}', {epoch})" for name, epoch in sorted(epochs.items()))
        self._store.command(f"INSERT INTO tallystick.fence (name, epoch) VALUES {values}")

    def _may_write(self) -> str:
        """The condition that no later owner of our leases is known; true without a fence."""
        epochs = self._fence() if self._fence is not None else None
        if epochs is None:
            return _ALWAYS
        if not epochs:
            raise LeaseLost("this process holds no lease to write under")
        ours = ", ".join(f"('{name}', {epoch})" for name, epoch in sorted(epochs.items()))
        return (
            "(SELECT count() FROM (SELECT name, max(epoch) AS latest FROM tallystick.fence "
            f"GROUP BY name) WHERE (name, latest) IN ({ours})) = {len(epochs)}"
        )

    def _write(self, write: Callable[[str], None], also: str = _ALWAYS) -> None:
        """Write under a condition; raise LeaseLost when it no longer held, and nothing landed.

        Epochs only grow, and so does the horizon of `also`: a condition that holds after a write
        has held before it.
        """
        condition = " AND ".join(dict.fromkeys((self._may_write(), also)))
        write(condition)
        if condition != _ALWAYS:
            (row,) = self._store.query_rows(f"SELECT {condition} AS holds")
            if not row["holds"]:
                raise LeaseLost("another process took over while this one was writing")

    def query_watermarks(self, table: str) -> Offsets:
        """The offset after the last one that a rollup holds, by log partition."""
        rows = self._store.query_rows(_SQL["query_watermarks"].format(table=table))
        return {row["log_partition"]: int(row["last_offset"]) + 1 for row in rows}

    def fold_facts(self, table: str, starts: Offsets, ends: Offsets) -> None:
        """Fold facts of the log ranges [start, end) into `table`, in bounded pieces."""
        offsets_max = _OFFSETS_PER_FOLD.get(table, _OFFSETS_PER_FOLD_ELSE)
        while moving := [one for one, end in ends.items() if starts.get(one, 0) < end]:
            each = max(offsets_max // len(moving), 1)
            piece = {
                partition: min(starts.get(partition, 0) + each, end)
                for partition, end in ends.items()
            }
            condition = f"({within('log_offset', starts, piece)})"
            if table == "runs":
                select = _SQL["fold_runs"].format(condition=condition)
            else:
                select = (_user_select if table == "rollup_user" else _delta_select)(condition)
            self._insert_select(table, select)
            starts = {**starts, **piece}

    def has_before(self, moment: int, starts: Offsets, ends: Offsets) -> bool:
        """Whether events of before `moment` (micros) are in the log ranges [start, end)."""
        sql = _SQL["has_before"].format(condition=within("log_offset", starts, ends))
        return bool(self._store.query_rows(sql, {"moment": moment}))

    def fold_deltas(self, table: str, starts: Offsets, ends: Offsets) -> None:
        """Fold deltas of the log ranges [start, end) into a coarser rollup."""
        condition = within("d.last_offset", starts, ends)
        if table == "rollup_minute":
            columns = ", ".join(name for name, _ in self._columns_of(table))
            select = _SQL["copy_delta"].format(columns=columns, condition=condition)
        else:
            select = _coarse_select(table, condition)
        self._insert_select(table, select)

    def delete_deltas(self, ends: Offsets) -> None:
        """Delete what every rollup has taken in long ago."""
        old = {partition: end - _DELTAS_KEPT for partition, end in ends.items()}
        old = {partition: end for partition, end in old.items() if end > 0}
        if old:
            condition = within("last_offset", {}, old)
            self._store.command(_SQL["delete_deltas"].format(condition=condition))

    def _insert_select(self, table: str, select: str) -> None:
        columns = ", ".join(name for name, _ in self._columns_of(table))
        self._write(
            lambda may_write: self._store.command(
                f"INSERT INTO tallystick.{table} ({columns}) SELECT {columns} FROM ({select}) "
                f"WHERE {may_write} {ONE_PART}, optimize_on_insert = 0"
            )
        )

    def _columns_of(self, table: str) -> list[tuple[str, str]]:
        if table not in self._columns:
            rows = self._store.query_rows(
                "SELECT name, type FROM system.columns WHERE database = 'tallystick' "
                "AND table = {table:String} ORDER BY position",
                {"table": table},
            )
            self._columns[table] = [(row["name"], row["type"]) for row in rows]
        return self._columns[table]

    def query_identities(self, tenants: Sequence[str], ids: Sequence[str]) -> list[dict[str, Any]]:
        """Facts of these tenants and event ids: both, digest (hex), coordinates."""
        arguments = {"tenants": list(tenants), "ids": list(ids)}
        return self._store.query_rows(_SQL["query_identities"].format(), arguments)

    def query_landed_identities(
        self, partition: int, start: int, end: int, since: int
    ) -> list[dict[str, Any]]:
        """Facts of a log range received since (micros): tenant_id, event_id, digest, offset."""
        parameters = {"partition": partition, "start": start, "end": end}
        return self._store.query_rows(
            _SQL["query_landed_identities"].format(),
            {**parameters, "since": to_datetime(since).strftime("%Y-%m-%d %H:%M:%S.%f")},
        )

    def query_horizon(self) -> int:
        """From when on facts are kept (micros); 0: for ever."""
        return int(self._store.query_rows(f"SELECT {_HORIZON} AS horizon_at")[0]["horizon_at"])

    def query_attempts(self, runs: Sequence[RunKey], horizon: int) -> list[dict[str, Any]]:
        """Rated credits of runs by attempt since the horizon, in all and late.

        Also when each began (micros) and whether the run failed, by all facts that are there.
        """
        arguments = {"runs": as_lines(runs), "horizon": horizon}
        return self._store.query_rows(_SQL["query_attempts"].format(), arguments)

    def query_past(self, runs: Sequence[RunKey], horizon: int) -> dict[RunKey, Past]:
        """What is known of runs' time before the horizon; those that have none are left out."""
        if not runs:
            return {}
        arguments = {"runs": as_lines(runs), "horizon": horizon}
        return {
            (row["tenant_id"], row["charge_key"]): Past(
                int(row["credit_units"]),
                int(row["began_at"]) or None,
                int(row["attempt_last"]),
                bool(row["is_failed"]),
            )
            for row in self._store.query_rows(_SQL["query_past"].format(), arguments)
        }

    def post_lines(
        self,
        runs: Sequence[RunKey],
        plan: LinePlan,
        now: int,
        *,
        new: Collection[RunKey] = (),
        horizon: int = 0,
    ) -> None:
        """Post the difference between what the runs' charge lines should be and are.

        What is posted of `new` runs is not looked for: they have no lines yet. Lines of before
        the horizon are final. Raises LeaseLost when it is another one by now.
        """
        known = [run for run in runs if run not in new]
        dimensions = ", ".join((*ROLLUP_KEYS, "user_id"))
        statement = partial(
            _SQL["post_lines"].format,
            keys=", ".join(LINE_KEYS),
            dimensions=dimensions,
            known=_SQL["known_lines"].format(dimensions=dimensions) if known else "",
            is_charged=_is_charged(plan),
            is_wasted=_is_among("wasted") if plan.wasted else "false",
        )
        lists = {**plan._asdict(), "runs": runs, "known": known}
        parameters = {name: as_lines(rows) for name, rows in lists.items() if rows}
        self._write(
            lambda may_write: self._store.command(
                statement(may_write=may_write), {"now": now, "horizon": horizon, **parameters}
            ),
            also=f"{_HORIZON} = {horizon}",
        )

    def query_counts(self) -> dict[str, int]:
        """Facts, duplicates, conflicts so far; markers are offsets that hold none of those."""
        return dict(self._store.query_rows(_SQL["query_counts"])[0])

    def query_digest(self) -> str:
        """A digest over every column of every fact, whatever their order."""
        return str(self._store.query_rows(_SQL["query_digest"])[0]["digest"])

    def wipe(self) -> None:
        """Delete everything derived; the log still has it all.

        But for the horizon and charge lines of before it, whose facts count no more.
        """
        horizon = self.query_horizon()
        for table in DERIVED_TABLES:
            if table == "charges" and horizon:
                self._store.command(_SQL["delete_lines"], {"horizon": horizon})
            else:
                self._store.command(f"TRUNCATE TABLE tallystick.{table}")
