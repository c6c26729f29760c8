"""Alerts, channels and routes as rows (migration 0530_alerts.sql), each within one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from tallystick.errors import NotFound
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.alerts", "store.sql").items()
}
Row = dict[str, Any]


class AlertRows:
    """Runs the named statements; a tenant of "" sees all."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    @contextmanager
    def writing(self) -> Iterator[AlertTransaction]:
        """Several statements in one transaction."""
        with transaction(self._pool) as connection:
            yield AlertTransaction(connection)

    def rows(self, statement: str, **arguments: Any) -> list[Row]:
        """What one statement returns."""
        with self.writing() as open_:
            return open_.rows(statement, **arguments)

    def one(self, statement: str, what: str, **arguments: Any) -> Row:
        """The one row of a statement; NotFound names `what`."""
        with self.writing() as open_:
            return open_.one(statement, what, **arguments)


class AlertTransaction:
    """Named statements on one connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, arguments: Mapping[str, Any]) -> int:
        """Run a statement; return how many rows it changed."""
        return self._connection.execute(_SQL[statement], arguments).rowcount

    def rows(self, statement: str, **arguments: Any) -> list[Row]:
        """What one statement returns."""
        with self._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(_SQL[statement], arguments).fetchall()

    def one(self, statement: str, what: str, **arguments: Any) -> Row:
        """The one row of a statement; NotFound names `what`."""
        found = self.rows(statement, **arguments)
        if not found:
            raise NotFound(f"there is no such {what}")
        return found[0]
