"""Plans and drivers: what to ask PostgreSQL is decided without doing it.

A plan is a generator that yields batches of queries and is sent their rows. The same plan is
driven over a blocking connection (jobs, workers, tests) and over an asynchronous one (HTTP),
one round trip a batch; nothing is written twice for the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import psycopg

from tallystick.plumbing.arrays import Parts
from tallystick.plumbing.exchange import Statement, exchange
from tallystick.plumbing.sql import load_statements

SQL = {
    name: text.encode() for name, text in load_statements("tallystick.ledger", "store.sql").items()
}
Connection = psycopg.Connection[Any]
AsyncConnection = psycopg.AsyncConnection[Any]
Row = tuple[Any, ...]
T = TypeVar("T")


class Query(NamedTuple):
    """A named statement with its arguments; one that writes by set is completed by `parts`."""

    name: str
    arguments: dict[str, Any]
    parts: Parts | None = None

    @property
    def sql(self) -> bytes:
        """The statement's text."""
        return SQL[self.name] if self.parts is None else _complete(self.name, self.parts)


@lru_cache(maxsize=1000)
def _complete(name: str, parts: Parts) -> bytes:
    text = SQL[name].decode()
    for part, value in zip(parts._fields, parts, strict=True):
        text = text.replace("{" + part + "}", value)
    return text.encode()


class Batch(NamedTuple):
    """Queries of one round trip; the last batch of a transaction commits in the same trip."""

    queries: Sequence[Query]
    is_last: bool = False


Plan = Generator[Batch, list[list[Row]], T]
"""Yields batches; is sent, for each query, its rows or one row with the count of rows."""


def drive(connection: Connection, plan: Plan[T]) -> T:
    """Carry out a plan in the caller's transaction, which the caller commits."""
    try:
        batch = next(plan)
        while True:
            with connection.pipeline():
                cursors = [
                    connection.execute(query.sql, query.arguments, binary=True)
                    for query in batch.queries
                ]
            batch = plan.send([_rows_of(cursor, cursor.fetchall) for cursor in cursors])
    except StopIteration as stop:
        found: T = stop.value
        return found


async def drive_async(connection: AsyncConnection, plan: Plan[T]) -> T:
    """Carry out a plan as one transaction: committed when this returns, else rolled back."""
    try:
        batch = next(plan)
        while True:
            statements = [Statement(query.sql, query.arguments) for query in batch.queries]
            batch = plan.send(await exchange(connection, statements, commits=batch.is_last))
    except StopIteration as stop:
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            await exchange(connection, (), commits=True)
        found: T = stop.value
        return found
    except BaseException:
        with contextlib.suppress(psycopg.Error):  # what failed is told, not what came of it
            await connection.rollback()
        raise


def _rows_of(cursor: psycopg.Cursor[Any], fetch: Any) -> list[Row]:
    return list(fetch()) if _has_rows(cursor) else [(cursor.rowcount,)]


def _has_rows(cursor: psycopg.Cursor[Any]) -> bool:
    """Whether a statement returns rows; `description` says so too, but makes every column."""
    return cursor.pgresult is not None and cursor.pgresult.nfields > 0
