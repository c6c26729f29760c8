"""What people did about broken messages, in PostgreSQL (migration 0300_broken.sql)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode() for name, text in load_statements("tallystick.broken", "store.sql").items()
}
Key = tuple[str, str]
"""(tenant_id, broken_id)."""


class Ending(NamedTuple):
    """How the fix of one message ended; `outcome` is accepted, duplicate or conflict."""

    key: Key
    event_id: str
    outcome: str

    @property
    def status(self) -> str:
        """What the message is now: a conflict leaves it open."""
        return "open" if self.outcome == "conflict" else "fixed"


class BrokenStore:
    """Claims, endings and dismissals, each with its record."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def load_states(self, ids: Sequence[str]) -> dict[Key, dict[str, Any]]:
        """The state of each message that somebody touched."""
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            rows = cursor.execute(_SQL["load_states"], {"ids": list(ids)}).fetchall()
        return {(row["tenant_id"], row["broken_id"]): row for row in rows}

    def load_actions(self, key: Key) -> list[dict[str, Any]]:
        """Everything that was done about one message, in order."""
        arguments = {"tenant_id": key[0], "broken_id": key[1]}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_SQL["load_actions"], arguments).fetchall()

    def claim(self, event_ids: Mapping[Key, str], now: int, by: str) -> set[Key]:
        """Bind messages to event ids; return those that are now (or were already) so bound."""
        keys = list(event_ids)
        arguments = {
            **_columns(keys),
            "event_ids": [event_ids[key] for key in keys],
            "now": now,
            "by": by,
        }
        with transaction(self._pool) as connection:
            rows = connection.execute(_SQL["claim"], arguments).fetchall()
        return {(row[0], row[1]) for row in rows}

    def settle(self, endings: Sequence[Ending], fields: Sequence[str], now: int, by: str) -> None:
        """Record how fixes ended, and what the messages are now."""
        columns = _columns([ending.key for ending in endings])
        common = {**columns, "now": now, "by": by}
        with transaction(self._pool) as connection:
            statuses = [ending.status for ending in endings]
            connection.execute(_SQL["settle"], {**common, "statuses": statuses})
            connection.execute(
                _SQL["append_actions"],
                {
                    **common,
                    "kind": "fix",
                    "outcomes": [ending.outcome for ending in endings],
                    "event_ids": [ending.event_id for ending in endings],
                    "fields": list(fields),
                    "reason": "",
                },
            )

    def dismiss(self, key: Key, reason: str, now: int, by: str) -> bool:
        """Dismiss one message; False when it is fixed or being fixed."""
        arguments = {"tenant_id": key[0], "broken_id": key[1], "reason": reason}
        with transaction(self._pool) as connection:
            found = connection.execute(
                _SQL["dismiss"], {**arguments, "now": now, "by": by}
            ).fetchone()
            if found is None:
                return False
            connection.execute(
                _SQL["append_actions"],
                {
                    **_columns([key]),
                    "kind": "dismiss",
                    "outcomes": ["dismissed"],
                    "event_ids": [""],
                    "fields": [],
                    "reason": reason,
                    "now": now,
                    "by": by,
                },
            )
        return True


def _columns(keys: Sequence[Key]) -> dict[str, list[str]]:
    return {"tenants": [tenant for tenant, _ in keys], "ids": [id_ for _, id_ in keys]}
