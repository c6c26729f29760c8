"""Backfills in PostgreSQL (migration 0400_backfill.sql)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from tallystick.backfill.model import Backfill, BackfillRequest, Piece, Status
from tallystick.errors import NotFound, Raced
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.backfill", "store.sql").items()
}
_Connection = psycopg.Connection[Any]


class BackfillStore:
    """Rows of backfills and of their reports."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def insert(
        self,
        connection: _Connection,
        backfill_id: str,
        request: BackfillRequest,
        now: int,
        by: str,
    ) -> Backfill:
        """Record what was asked for, or return what was asked for under its key before."""
        arguments = msgspec.structs.asdict(request) | {
            "backfill_id": backfill_id,
            "kind": "revert" if request.reverts else "rating",
            "tenant_ids": list(request.tenant_ids),
            "models": list(request.models),
            "created_at": now,
            "created_by": by,
        }
        connection.execute(_SQL["insert"], arguments)
        return self._one(connection, "load_by_key", {"idempotency_key": request.idempotency_key})

    def load(self, backfill_id: str) -> Backfill:
        """One backfill; NotFound."""
        with transaction(self._pool) as connection:
            return self._one(connection, "load_one", {"backfill_id": backfill_id})

    def lock(self, connection: _Connection, backfill_id: str) -> Backfill:
        """One backfill, locked until the transaction ends; NotFound."""
        return self._one(connection, "lock_one", {"backfill_id": backfill_id})

    def find_key(self, connection: _Connection, key: str) -> Backfill | None:
        """What was asked for under a key."""
        return self._maybe(connection, "load_by_key", {"idempotency_key": key})

    def load_open(self) -> Backfill | None:
        """The oldest one that is to be worked on."""
        with transaction(self._pool) as connection:
            return self._maybe(connection, "load_open", {})

    def newest(self, limit: int) -> list[Backfill]:
        """The newest ones."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return list(map(_read, cursor.execute(_SQL["newest"], {"limit": limit}).fetchall()))

    def has_revert(self, connection: _Connection, backfill_id: str) -> bool:
        """Tell whether a revert of it stands."""
        row = connection.execute(_SQL["count_reverts"], {"backfill_id": backfill_id}).fetchone()
        return bool(row and row[0])

    def move(
        self,
        connection: _Connection,
        backfill_id: str,
        status: Status,
        now: int,
        failure: str = "",
    ) -> None:
        """Move one to another status."""
        arguments = {"backfill_id": backfill_id, "status": status, "now": now, "failure": failure}
        connection.execute(_SQL["move_status"], arguments)

    def begin(self, backfill_id: str, ends: Mapping[int, int], now: int) -> None:
        """Say which facts are meant."""
        arguments = {"backfill_id": backfill_id, "ends": Jsonb(dict(ends)), "now": now}
        with transaction(self._pool) as connection:
            connection.execute(_SQL["begin"], arguments)

    def finish_piece(
        self, connection: _Connection, backfill: Backfill, piece: Piece, expected: int, now: int
    ) -> None:
        """Store what a piece found and move behind it; Raced when it is no longer the next."""
        arguments = {
            "backfill_id": backfill.backfill_id,
            "pieces": backfill.pieces,
            "cursor": Jsonb(piece.cursor),
            "examined": piece.examined,
            "expected": expected,
            "corrected": sum(line.corrected for line in piece.lines),
            "skipped": piece.skipped,
            "is_last": piece.is_last,
            "now": now,
        }
        if not connection.execute(_SQL["finish_piece"], arguments).rowcount:
            raise Raced("this piece was done, or the backfill was paused")
        own = (backfill.backfill_id, backfill.pieces)
        cursor = connection.cursor()
        cursor.executemany(_SQL["append_line"], [(*own, *line) for line in piece.lines])
        cursor.executemany(_SQL["append_run"], [(*own, *run) for run in piece.runs])
        if piece.is_last and backfill.reverts:
            connection.execute(_SQL["finish_revert"], {"reverts": backfill.reverts, "now": now})

    def load_lines(self, backfill_id: str) -> list[dict[str, Any]]:
        """The report by tenant and model."""
        return self._rows("load_lines", {"backfill_id": backfill_id})

    def load_runs(self, backfill_id: str, limit: int) -> list[dict[str, Any]]:
        """The runs that changed most; each row also says how many changed in all."""
        return self._rows("load_runs", {"backfill_id": backfill_id, "limit": limit})

    def _rows(self, name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_SQL[name], arguments).fetchall()

    def _one(self, connection: _Connection, name: str, arguments: dict[str, Any]) -> Backfill:
        found = self._maybe(connection, name, arguments)
        if found is None:
            raise NotFound("no such backfill", code="unknown_backfill")
        return found

    def _maybe(
        self, connection: _Connection, name: str, arguments: dict[str, Any]
    ) -> Backfill | None:
        cursor = connection.cursor(row_factory=dict_row)
        row = cursor.execute(_SQL[name], arguments).fetchone()
        return _read(row) if row else None


def _read(row: dict[str, Any]) -> Backfill:
    ends = {int(partition): offset for partition, offset in row["ends"].items()}
    return msgspec.convert(row | {"ends": ends}, Backfill)
