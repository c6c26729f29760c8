"""Overruns, mitigations, policies and planned launches in PostgreSQL (0540_overrun.sql)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from tallystick.enforcement.overrun.model import (
    Mitigation,
    MitigationEvent,
    Overrun,
    PlannedLaunch,
    Policy,
)
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.overrun", "store.sql").items()
}
Connection = psycopg.Connection[Any]
_Row = TypeVar("_Row", bound=msgspec.Struct)


class OverrunStore:
    """Rows; each method is one statement in the caller's transaction.

    A tenant_id of "" is the operator's: it sees every tenant.
    """

    def revision(self, connection: Connection) -> int:
        """Which state of the active mitigations stands."""
        row = connection.execute(_SQL["load_revision"]).fetchone()
        return int(row[0]) if row else 0

    def insert_mitigation(self, connection: Connection, mitigation: Mitigation) -> bool:
        """Put a step in force; False when its key is known."""
        arguments = {**msgspec.structs.asdict(mitigation), "scope": Jsonb(dict(mitigation.scope))}
        cursor = connection.execute(_SQL["insert_mitigation"], arguments)
        return self._changed(connection, cursor.rowcount)

    def end_mitigation(self, connection: Connection, mitigation_id: str, now: int) -> bool:
        """End one that is in force; False when it had ended."""
        arguments = {"mitigation_id": mitigation_id, "now": now}
        return self._changed(
            connection, connection.execute(_SQL["end_mitigation"], arguments).rowcount
        )

    def expire_due(self, connection: Connection, now: int) -> list[Mitigation]:
        """End what is over; return it."""
        ended = self._all(connection, Mitigation, "expire_due", {"now": now})
        self._changed(connection, len(ended))
        return ended

    def append_event(
        self,
        connection: Connection,
        mitigation: Mitigation,
        kind: str,
        reason: str,
        at: int,
        by: str,
    ) -> None:
        """Write to the audit trail."""
        arguments = {
            "mitigation_id": mitigation.mitigation_id,
            "tenant_id": mitigation.tenant_id,
            "kind": kind,
            "step": mitigation.step,
            "scope": Jsonb(dict(mitigation.scope)),
            "reason": reason,
            "acted_at": at,
            "acted_by": by,
        }
        connection.execute(_SQL["append_event"], arguments)

    def mitigation(
        self, connection: Connection, tenant_id: str, mitigation_id: str
    ) -> Mitigation | None:
        """One mitigation."""
        arguments = {"tenant_id": tenant_id, "mitigation_id": mitigation_id}
        return self._maybe(connection, Mitigation, "load_mitigation", arguments)

    def mitigation_of_key(
        self, connection: Connection, tenant_id: str, key: str
    ) -> Mitigation | None:
        """What was asked for under an idempotency key."""
        arguments = {"tenant_id": tenant_id, "idempotency_key": key}
        return self._maybe(connection, Mitigation, "load_mitigation_by_key", arguments)

    def active(self, connection: Connection, now: int) -> list[Mitigation]:
        """Every step in force."""
        return self._all(connection, Mitigation, "load_active", {"now": now})

    def of_overrun(self, connection: Connection, overrun_id: str) -> list[Mitigation]:
        """Every step that answered an overrun, in order."""
        return self._all(connection, Mitigation, "load_of_overrun", {"overrun_id": overrun_id})

    def mitigations(
        self, connection: Connection, tenant_id: str, *, is_active: bool, now: int, limit: int
    ) -> list[Mitigation]:
        """The newest mitigations."""
        arguments = {"tenant_id": tenant_id, "is_active": is_active, "now": now, "limit": limit}
        return self._all(connection, Mitigation, "list_mitigations", arguments)

    def events(self, connection: Connection, mitigation_id: str) -> list[MitigationEvent]:
        """What happened to one mitigation."""
        arguments = {"mitigation_id": mitigation_id}
        return self._all(connection, MitigationEvent, "load_events", arguments)

    def put_policy(self, connection: Connection, policy: Policy, now: int, by: str) -> None:
        """Set the policy of a scope."""
        steps = Jsonb(msgspec.to_builtins(policy.steps))
        arguments = {**msgspec.structs.asdict(policy), "steps": steps, "now": now, "by": by}
        connection.execute(_SQL["put_policy"], arguments)

    def policies(self, connection: Connection, tenant_id: str) -> list[Policy]:
        """Policies of a tenant."""
        return self._all(connection, Policy, "load_policies", {"tenant_id": tenant_id})

    def open_overrun(self, connection: Connection, overrun: Overrun) -> bool:
        """Record an episode; False when one is open already."""
        arguments = msgspec.structs.asdict(overrun)
        return connection.execute(_SQL["open_overrun"], arguments).rowcount == 1

    def save_overrun(self, connection: Connection, overrun: Overrun) -> None:
        """Record what is known of an episode by now."""
        connection.execute(_SQL["save_overrun"], msgspec.structs.asdict(overrun))

    def open_overruns(self, connection: Connection) -> list[Overrun]:
        """Every open episode."""
        return self._all(connection, Overrun, "load_open_overruns", {})

    def overrun(self, connection: Connection, tenant_id: str, overrun_id: str) -> Overrun | None:
        """One episode."""
        arguments = {"tenant_id": tenant_id, "overrun_id": overrun_id}
        return self._maybe(connection, Overrun, "load_overrun", arguments)

    def overruns(
        self, connection: Connection, tenant_id: str, *, is_open: bool, limit: int
    ) -> list[Overrun]:
        """The newest episodes."""
        arguments = {"tenant_id": tenant_id, "is_open": is_open, "limit": limit}
        return self._all(connection, Overrun, "list_overruns", arguments)

    def insert_launch(self, connection: Connection, launch: PlannedLaunch) -> None:
        """Put a planned launch on file."""
        connection.execute(_SQL["insert_launch"], msgspec.structs.asdict(launch))

    def withdraw_launch(
        self, connection: Connection, tenant_id: str, launch_id: str, now: int
    ) -> PlannedLaunch | None:
        """Take a planned launch back."""
        arguments = {"tenant_id": tenant_id, "launch_id": launch_id, "now": now}
        return self._maybe(connection, PlannedLaunch, "withdraw_launch", arguments)

    def launches(self, connection: Connection, tenant_id: str, since: int) -> list[PlannedLaunch]:
        """Launches that are not over at a time."""
        arguments = {"tenant_id": tenant_id, "since": since}
        return self._all(connection, PlannedLaunch, "load_launches", arguments)

    def _changed(self, connection: Connection, count: int) -> bool:
        if count:
            connection.execute(_SQL["bump_revision"])
        return count > 0

    def _all(
        self, connection: Connection, shape: type[_Row], name: str, arguments: Mapping[str, Any]
    ) -> list[_Row]:
        rows = connection.cursor(row_factory=dict_row).execute(_SQL[name], arguments).fetchall()
        return [_read(row, shape) for row in rows]

    def _maybe(
        self, connection: Connection, shape: type[_Row], name: str, arguments: Mapping[str, Any]
    ) -> _Row | None:
        rows = self._all(connection, shape, name, arguments)
        return rows[0] if rows else None


def _read(row: dict[str, Any], shape: type[_Row]) -> _Row:
    return msgspec.convert(row, shape, builtin_types=(Decimal,))
