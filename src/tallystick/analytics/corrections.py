"""Corrections of facts: what an event counts as now, and rows that change that.

A fact is never updated. A correction appends signed rows to a log of its own, and the sink
makes facts of them, so what an event counts as is the sum of its rows. Who corrects decides
on what ClickHouse shows, which lags that log. Two rules make the decision safe: it is taken
only when the sink has read the log of corrections to its head, and the rows are appended only
if that head has not moved since. So two writers never correct the same event from the same
state, whatever crashes in between. What is about to expire is corrected no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa
from psycopg_pool import ConnectionPool

from tallystick.analytics.facts import CORRECTION_FIELDS, FACT_TYPES
from tallystick.errors import Raced
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import CORRECTIONS, Horizons, Positions, PostgresLog, Verdict
from tallystick.plumbing.log.columns import columns_of_rows
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.analytics", "corrections.sql")
CONTENT_FIELDS = CORRECTION_FIELDS[2:]
"""What a row says of its event: everything but sign, correction id and coordinates."""

Content = tuple[Any, ...]
"""Values of CONTENT_FIELDS; times in micros, the digest as bytes."""

Place = tuple[int, int]
"""(log partition, log offset)."""


class Current(NamedTuple):
    """One content that an event counts as, how often, and where that is said."""

    content: Content
    times: int
    first_place: Place
    last_place: Place

    @property
    def key(self) -> EventKey:
        """The key of its event."""
        return EventKey(*(self.content[place] for place in _KEY_PLACES))


class Signed(NamedTuple):
    """One row of a correction."""

    sign: int
    correction_id: str
    content: Content

    @property
    def row(self) -> Content:
        """Values in the order of CORRECTION_FIELDS."""
        return (self.sign, self.correction_id, *self.content)


class EventKey(NamedTuple):
    """An event in the order in which facts are sorted."""

    tenant_id: str
    charge_key: str
    occurred_at: int
    event_id: str


_KEY_PLACES = [CONTENT_FIELDS.index(name) for name in EventKey._fields]
_DIGEST_PLACE = CONTENT_FIELDS.index("content_digest")


def content_field(content: Content, name: str) -> Any:
    """One field of a content."""
    return content[CONTENT_FIELDS.index(name)]


class Corrections:
    """Reads what events count as, and appends signed rows."""

    def __init__(self, pool: ConnectionPool, store: ClickHouse) -> None:
        self._log = PostgresLog(pool, CORRECTIONS)
        self._positions = Positions(pool)
        self._horizons = Horizons(pool)
        self._pool = pool
        self._store = store

    def settled_head(self) -> int | None:
        """The head of the log of corrections; None while the facts lack some of it."""
        head = self._log.head()
        return head if self._positions.offset("sink", CORRECTIONS) >= head else None

    def corrected_from(self) -> int:
        """From when on events (micros) may be corrected: before it facts are about to expire."""
        with transaction(self._pool) as connection:
            return self._horizons.corrected_from(connection)

    def append(
        self, connection: psycopg.Connection[Any], rows: Sequence[Signed], head: int, now: int
    ) -> None:
        """Append rows that were decided at `head`, in a transaction of the caller.

        Raises Raced when others have appended since, or one of their events is to be corrected
        no more: then nothing is stored.
        """
        oldest = min((content_field(one.content, "occurred_at") for one in rows), default=0)
        if rows and oldest < self._horizons.corrected_from(connection):
            raise Raced("facts are about to expire; without those this is decided again")

        def judge(offset_start: int) -> bytes:
            if offset_start != head:
                raise Raced("other corrections came in between; this one is decided again")
            return bytes([Verdict.ORIGINAL]) * len(rows)

        if rows:
            columns = columns_of_rows([one.row for one in rows])
            self._log.append_within(connection, len(rows), columns, now, judge)

    def query_current(self, condition: str, parameters: Mapping[str, Any]) -> list[Current]:
        """What the events of a condition count as, in the order of their keys."""
        sql = _SQL["query_current"].format(
            fields=_FIELDS,
            columns=", ".join(f"f.{name}" for name in CONTENT_FIELDS),
            condition=condition,
        )
        rows = self._store.query_rows(sql, parameters)
        return [
            Current(
                _content(row),
                int(row["net"]),
                _place(row["first_place"]),
                _place(row["last_place"]),
            )
            for row in rows
        ]

    def query_keys(
        self, condition: str, parameters: Mapping[str, Any], limit: int
    ) -> list[EventKey]:
        """Keys of the next events, as they came."""
        sql = _SQL["query_keys"].format(condition=condition, limit=limit)
        return [
            EventKey(row["tenant_id"], row["charge_key"], int(row["occurred"]), row["event_id"])
            for row in self._store.query_rows(sql, parameters)
        ]

    def count(self, condition: str, parameters: Mapping[str, Any]) -> int:
        """How many events a condition means."""
        sql = _SQL["count_events"].format(condition=condition)
        return int(self._store.query_rows(sql, parameters)[0]["events"])

    def query_rows(
        self, correction_id: str, start: int, limit: int, since: int
    ) -> list[tuple[int, Signed]]:
        """Rows of one correction from an offset on, of events since a time, with their offsets."""
        condition = (
            f"log_partition = {CORRECTIONS} AND log_offset >= {{start:UInt64}} "
            "AND correction_id = {correction:String} "
            "AND occurred_at >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"
        )
        sql = _SQL["query_rows"].format(fields=_FIELDS, condition=condition, limit=limit)
        rows = self._store.query_rows(
            sql, {"start": start, "correction": correction_id, "since": since}
        )
        return [
            (int(row["log_offset"]), Signed(int(row["sign"]), correction_id, _content(row)))
            for row in rows
        ]


def after(key: EventKey | None, prefix: str) -> tuple[str, dict[str, Any]]:
    """The condition that a row is behind a key (in front of it and at it: `until`)."""
    if key is None:
        return "1", {}
    return _beyond(">", prefix), _named(key, prefix)


def until(key: EventKey, prefix: str) -> tuple[str, dict[str, Any]]:
    """The condition that a row is at a key or in front of it."""
    return f"NOT ({_beyond('>', prefix)}) AND tenant_id <= {{{prefix}_tenant:String}}", _named(
        key, prefix
    )


def _beyond(sign: str, prefix: str) -> str:
    at = f"fromUnixTimestamp64Micro({{{prefix}_at:Int64}}, 'UTC')"
    tenant, run, event = (f"{{{prefix}_{name}:String}}" for name in ("tenant", "run", "event"))
    return (
        f"(tenant_id {sign} {tenant} OR (tenant_id = {tenant} AND (charge_key {sign} {run} "
        f"OR (charge_key = {run} AND (f.occurred_at {sign} {at} "
        f"OR (f.occurred_at = {at} AND event_id {sign} {event}))))))"
    )


def _named(key: EventKey, prefix: str) -> dict[str, Any]:
    names = ("tenant", "run", "at", "event")
    return {f"{prefix}_{name}": value for name, value in zip(names, key, strict=True)}


def _expression(name: str) -> str:
    kind = FACT_TYPES[name]
    if pa.types.is_timestamp(kind):
        return f"toUnixTimestamp64Micro(f.{name})"
    return f"hex(f.{name})" if pa.types.is_fixed_size_binary(kind) else f"f.{name}"


_FIELDS = ", ".join(f"{_expression(name)} AS c{place}" for place, name in enumerate(CONTENT_FIELDS))


def _content(row: Mapping[str, Any]) -> Content:
    values = [row[f"c{place}"] for place in range(len(CONTENT_FIELDS))]
    values[_DIGEST_PLACE] = bytes.fromhex(values[_DIGEST_PLACE])
    return tuple(values)


def _place(found: Sequence[Any]) -> Place:
    return int(found[0]), int(found[1])
