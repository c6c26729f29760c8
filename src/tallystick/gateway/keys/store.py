"""Rows of provider keys: sealed when they are told, opened for the gateway alone."""

from __future__ import annotations

import re

import msgspec
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from tallystick.clock import Clock
from tallystick.errors import InvalidInput, NotFound
from tallystick.plumbing.postgres import for_every_tenant, transaction
from tallystick.plumbing.sealing import SealBroken, Sealing
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.gateway.keys", "store.sql").items()
}
_UPSTREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_KEY = re.compile(r"[\x21-\x7e]{8,4096}")
_SHOWN_FROM = 16
"""A shorter key shows nothing of itself."""


class KeyView(msgspec.Struct, frozen=True):
    """What may be told of a key."""

    tenant_id: str
    """"": the installation's."""
    upstream: str
    last_four: str
    set_at: int
    set_by: str


class ProviderKeys:
    """Keys of providers at rest."""

    def __init__(self, pool: ConnectionPool, secret: str, clock: Clock) -> None:
        """`secret` is the installation's, TALLYSTICK_ACCESS_KEY."""
        self._pool = pool
        self._sealing = Sealing(
            secret.encode(), b"tallystick:provider keys", setting="TALLYSTICK_ACCESS_KEY"
        )
        self._clock = clock

    def put(self, tenant_id: str, upstream: str, key: str, by: str) -> KeyView:
        """Keep a key, in place of the one before; raises InvalidInput without repeating it."""
        if not _UPSTREAM.fullmatch(upstream):
            raise InvalidInput("an upstream has a name of letters, digits, _ . -", field="upstream")
        if not _KEY.fullmatch(key):
            raise InvalidInput("a key has 8 to 4096 visible ASCII characters", field="key")
        last_four = key[-4:] if len(key) >= _SHOWN_FROM else ""
        view = KeyView(tenant_id, upstream, last_four, self._clock.now(), by)
        sealed = self._sealing.seal(key.encode(), _name_of(tenant_id, upstream))
        with transaction(self._pool) as connection:
            connection.execute(_SQL["grow_revision"])
            connection.execute(_SQL["put_key"], msgspec.structs.asdict(view) | {"sealed": sealed})
        return view

    def delete(self, tenant_id: str, upstream: str) -> None:
        """Forget a key; NotFound."""
        arguments = {"tenant_id": tenant_id, "upstream": upstream}
        with transaction(self._pool) as connection:
            connection.execute(_SQL["grow_revision"])
            if connection.execute(_SQL["delete_key"], arguments).fetchone() is None:
                raise NotFound("there is no key for this upstream")

    def list(self, tenant_id: str | None) -> list[KeyView]:
        """What may be told of the keys of a tenant; None: of all."""
        arguments = {"is_everyones": tenant_id is None, "tenant_id": tenant_id}
        with (
            transaction(self._pool) as connection,
            connection.cursor(row_factory=class_row(KeyView)) as cursor,
        ):
            return cursor.execute(_SQL["load_keys"], arguments).fetchall()

    def revision(self) -> int:
        """Grows with each change."""
        with for_every_tenant(), transaction(self._pool) as connection:
            row = connection.execute(_SQL["load_revision"]).fetchone()
        assert row is not None
        return int(row[0])

    def open_all(self) -> dict[tuple[str, str], str]:
        """(tenant, upstream) -> key; "" for one that was sealed with another secret."""
        with for_every_tenant(), transaction(self._pool) as connection:
            rows = connection.execute(_SQL["load_sealed"]).fetchall()
        return {(tenant, name): self._open(tenant, name, sealed) for tenant, name, sealed in rows}

    def _open(self, tenant_id: str, upstream: str, sealed: bytes) -> str:
        try:
            return self._sealing.open(sealed, _name_of(tenant_id, upstream)).decode()
        except SealBroken:
            return ""


def _name_of(tenant_id: str, upstream: str) -> str:
    """What a sealed key is bound to; no upstream's name has a colon."""
    return f"provider key:{upstream}:{tenant_id}"
