"""The vault in PostgreSQL: add a step's cells, read sums, dump and wipe.

Cells and positions are stored in one transaction, under one lock, and only from the position
that is stored: whoever repeats a step, or runs beside another process, cannot add it twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from tallystick.enforcement.vault.model import (
    DIMENSIONS,
    FOLLOWER,
    SCOPE_COLUMNS,
    Cells,
    Connection,
    Spent,
)
from tallystick.enforcement.vault.rules import SUMMED
from tallystick.errors import InvalidInput, Raced
from tallystick.plumbing.arrays import text_array
from tallystick.plumbing.packed import accept_packed, pack_ids, pack_integers
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.enforcement.vault", "store.sql")
_LOCK = 7_215_520
_KNOWN_SCOPES_MAX = 200_000
_encoder = msgspec.msgpack.Encoder()
_json = msgspec.json.Encoder()


def scope_key(scope: Sequence[str]) -> bytes:
    """16 bytes that stand for a scope (in the order of SCOPE_COLUMNS)."""
    return blake2b(_encoder.encode(scope), digest_size=16).digest()


class VaultStore:
    """What was spent, by scope and bucket."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._known: set[bytes] = set()

    @property
    def pool(self) -> ConnectionPool:
        """Where it is."""
        return self._pool

    def forget(self) -> None:
        """Forget what is only in memory."""
        self._known.clear()

    def begin(
        self, connection: Connection, starts: Mapping[int, int], begun: Collection[int]
    ) -> None:
        """Lock the vault; Raced unless what was read begins where it stands.

        A partition without a position may begin anywhere, unless it is one of those `begun`:
        then its position was wiped meanwhile.
        """
        connection.execute(_SQL["lock_vault"].encode(), {"lock": _LOCK})
        stored = self.positions(connection, FOLLOWER)
        for partition, start in starts.items():
            is_new = partition not in stored and partition not in begun
            if not is_new and stored.get(partition) != start:
                raise Raced(f"the vault is elsewhere in partition {partition}; it is read again")

    def positions(self, connection: Connection, follower: str) -> dict[int, int]:
        """Where a follower is, by partition."""
        rows = connection.execute(_SQL["load_positions"].encode(), {"follower": follower})
        return dict(rows.fetchall())

    def add(self, connection: Connection, cells: Cells) -> None:
        """Add a step's cells, in the transaction that moves the positions."""
        if not len(cells.places):
            return
        accept_packed(connection)
        keys = [scope_key(scope) for scope in cells.scopes]
        self._add_scopes(connection, keys, cells.scopes)
        arguments: dict[str, Any] = {name: pack_integers(cells.sums[name]) for name in SUMMED}
        arguments["scope_key"] = pack_ids([keys[place] for place in cells.places.tolist()])
        arguments["bucket_at"] = pack_integers(cells.buckets)
        connection.execute(_SQL["add_spend"].encode(), arguments)

    def _add_scopes(
        self, connection: Connection, keys: Sequence[bytes], scopes: Sequence[tuple[str, ...]]
    ) -> None:
        """Store scopes; those of a transaction that fails are forgotten by `forget`."""
        places = [place for place, key in enumerate(keys) if key not in self._known]
        if not places:
            return
        columns = zip(*(scopes[place] for place in places), strict=True)
        arguments: dict[str, Any] = {
            name: text_array(values) for name, values in zip(SCOPE_COLUMNS, columns, strict=True)
        }
        arguments["scope_key"] = pack_ids([keys[place] for place in places])
        connection.execute(_SQL["add_scopes"].encode(), arguments)
        if len(self._known) > _KNOWN_SCOPES_MAX:
            self._known.clear()
        self._known.update(keys[place] for place in places)

    def load_spent(
        self,
        tenant_id: str,
        scope: Mapping[str, str],
        from_at: int,
        to_at: int,
        connection: Connection | None = None,
    ) -> Spent:
        """What was spent in [from_at, to_at): whole buckets, by where they begin."""
        condition = "".join(f" AND {column_of(name)} = %({name})s" for name in scope)
        sql = _SQL["load_spent"].format(condition=condition).encode()
        arguments = {**scope, "tenant_id": tenant_id, "from_at": from_at, "to_at": to_at}
        if connection is not None:
            row = connection.execute(sql, arguments).fetchone()
        else:
            with transaction(self._pool) as own:
                row = own.execute(sql, arguments).fetchone()
        return Spent(*map(int, row)) if row else Spent()

    def load_days(self, tenant_id: str, from_at: int, to_at: int) -> list[dict[str, Any]]:
        """Sums a day (UTC, as its number), by tenant, user, project and model."""
        arguments = {"tenant_id": tenant_id, "from_at": from_at, "to_at": to_at}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_SQL["load_days"].encode(), arguments).fetchall()

    def dump(self) -> bytes:
        """Everything that was spent, canonically: equal bytes are equal state."""
        with transaction(self._pool) as connection:
            rows = connection.execute(_SQL["dump"].encode()).fetchall()
        return b"".join(_json.encode(row) + b"\n" for row in rows)

    def wipe(self) -> None:
        """Forget what was counted, and begin again at the start of the log."""
        with transaction(self._pool) as connection:
            connection.execute(_SQL["lock_vault"].encode(), {"lock": _LOCK})
            connection.execute(_SQL["wipe"].encode())
            connection.execute(_SQL["forget_positions"].encode(), {"follower": FOLLOWER})
        self.forget()


def column_of(dimension: str) -> str:
    """The column of a dimension; InvalidInput names those that there are."""
    if dimension not in DIMENSIONS:
        raise InvalidInput(
            f"unknown dimension {dimension[:40]!r}; known: {', '.join(DIMENSIONS)}",
            code="unknown_dimension",
            field="scope",
        )
    return DIMENSIONS[dimension]
