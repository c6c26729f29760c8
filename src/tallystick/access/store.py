"""Access in PostgreSQL (migration 0150_access.sql)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from tallystick.access.model import Credential, IdentityProvider, SigningKey
from tallystick.errors import NotFound
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode() for name, text in load_statements("tallystick.access", "store.sql").items()
}
_LAST = "~"
"""Sorts behind every id."""

_NOUNS = {"key": "API key", "client": "OAuth client"}


class AccessStore:
    """Rows of credentials, identity providers and signing keys."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def load_version(self) -> int:
        """How often access was changed."""
        with transaction(self._pool) as connection:
            row = connection.execute(_SQL["load_version"]).fetchone()
        return int(row[0]) if row else 0

    # Credentials

    def load_by_prefix(self, prefix: str) -> Credential | None:
        """The credential of a prefix, also one that is revoked."""
        found = self._rows("load_by_prefix", {"prefix": prefix})
        return _credential(found[0]) if found else None

    def load_credential(self, kind: str, credential_id: str, tenant_id: str) -> Credential:
        """One credential of a tenant ("" is any); NotFound."""
        arguments = {"kind": kind, "credential_id": credential_id, "tenant_id": tenant_id}
        found = self._rows("load_credential", arguments)
        if not found:
            raise _not_found(kind)
        return _credential(found[0])

    def list_credentials(
        self, kind: str, tenant_id: str, before: str, limit: int
    ) -> list[Credential]:
        """Credentials of a tenant ("" is every one), newest first."""
        arguments = {"kind": kind, "tenant_id": tenant_id, "limit": limit}
        rows = self._rows("list_credentials", {**arguments, "before": before or _LAST})
        return [_credential(row) for row in rows]

    def insert_credential(self, made: Credential) -> None:
        """Store a new one."""
        with transaction(self._pool) as connection:
            connection.execute(_SQL["insert_credential"], _arguments(made))

    def change_credential(
        self,
        kind: str,
        credential_id: str,
        tenant_id: str,
        change: Callable[[Credential], Credential],
    ) -> Credential:
        """Lock, change and store one of a tenant; NotFound, or what `change` raises."""
        arguments = {"kind": kind, "credential_id": credential_id, "tenant_id": tenant_id}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            row = cursor.execute(_SQL["lock_credential"], arguments).fetchone()
            if row is None:
                raise _not_found(kind)
            changed = change(_credential(row))
            connection.execute(_SQL["update_credential"], _arguments(changed))
        return changed

    def note_uses(self, moments: Mapping[str, int]) -> None:
        """Remember when credentials were last used."""
        with transaction(self._pool) as connection:
            arguments = {"ids": list(moments), "moments": list(moments.values())}
            connection.execute(_SQL["note_uses"], arguments)

    # Identity providers

    def list_providers(self, tenant_id: str = "") -> list[IdentityProvider]:
        """Providers of a tenant, or all."""
        rows = self._rows("list_providers", {"tenant_id": tenant_id})
        return [msgspec.convert(row, IdentityProvider) for row in rows]

    def insert_provider(self, made: IdentityProvider) -> bool:
        """Store a new one; False when there is one of its issuer and audience."""
        with transaction(self._pool) as connection:
            cursor = connection.execute(_SQL["insert_provider"], _arguments(made))
            return cursor.rowcount == 1

    def delete_provider(self, provider_id: str, tenant_id: str) -> None:
        """Forget one of a tenant ("" is any); NotFound."""
        arguments = {"provider_id": provider_id, "tenant_id": tenant_id}
        with transaction(self._pool) as connection:
            if not connection.execute(_SQL["delete_provider"], arguments).rowcount:
                raise NotFound("no such identity provider", code="unknown_identity_provider")

    # Signing keys

    def list_signing_keys(self) -> list[SigningKey]:
        """Every published key, newest first."""
        return [msgspec.convert(row, SigningKey) for row in self._rows("list_signing_keys", {})]

    def change_signing_keys(
        self, plan: Callable[[Sequence[SigningKey]], tuple[SigningKey | None, Sequence[str]]]
    ) -> None:
        """Let `plan` say which key is new and which are forgotten, one process at a time."""
        with transaction(self._pool) as connection:
            connection.execute(_SQL["lock_signing_keys"])
            cursor = connection.cursor(row_factory=dict_row)
            rows = cursor.execute(_SQL["list_signing_keys"]).fetchall()
            made, forgotten = plan([msgspec.convert(row, SigningKey) for row in rows])
            if made is not None:
                connection.execute(_SQL["insert_signing_key"], msgspec.structs.asdict(made))
            if forgotten:
                arguments = {"key_ids": list(forgotten)}
                connection.execute(_SQL["delete_signing_keys"], arguments)

    def _rows(self, name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_SQL[name], arguments).fetchall()


def _arguments(row: msgspec.Struct) -> dict[str, Any]:
    found = msgspec.structs.asdict(row)
    for name, value in found.items():
        if isinstance(value, tuple):
            found[name] = list(value)
        elif isinstance(value, dict):
            found[name] = Jsonb(value)
    return found


def _credential(row: dict[str, Any]) -> Credential:
    return msgspec.convert(row, Credential)


def _not_found(kind: str) -> NotFound:
    code = {"key": "unknown_api_key", "client": "unknown_oauth_client"}[kind]
    return NotFound(f"there is no such {_NOUNS[kind]}", code=code)
