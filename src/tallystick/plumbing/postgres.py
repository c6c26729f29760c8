"""PostgreSQL: one pool per process, and migrations in order, each in its own transaction.

A migration is a file `NNNN_name.sql`. Its digest is recorded; a file that changed after
it ran stops the start, because two machines would otherwise disagree about the schema.
An advisory lock lets many processes start at once and one of them migrate.
"""

from __future__ import annotations

import hashlib
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.resources import files
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from tallystick.errors import Forbidden, StoreUnavailable, TallystickError

_MIGRATION_LOCK = 7_215_001
_ASSUME_ROLE = b"""
SELECT set_config('role', rolname, false) FROM pg_roles
WHERE rolname = 'tallystick_app' AND pg_has_role(current_user, oid, 'MEMBER')
"""
"""Without the role (it could not be made) the connection stays what it is."""

acting_for: ContextVar[str] = ContextVar("acting_for", default="")
"""The tenant for which this context (a request) reads and writes; "" is the operator."""

_ACT_FOR = b"""
SELECT set_config('tallystick.tenant', %s, true), (SELECT set_config('role', rolname, true)
    FROM pg_roles WHERE rolname = 'tallystick_tenant'
        AND pg_has_role(session_user, oid, 'MEMBER'))
"""
"""Until the transaction ends; policies of 0910_row_security.sql ask for both."""

_BOOKKEEPING = """
CREATE TABLE IF NOT EXISTS public.schema_migration (
    name text PRIMARY KEY, digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())
"""


BY_INDEX = (
    "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off "
    "-c enable_mergejoin=off -c plan_cache_mode=force_generic_plan -c jit=off"
)
"""Settings of a connection whose every statement looks rows up by index.

A plan that was cached while a table was empty would read the whole table for ever after. A
bitmap of a few rows costs more than they do, and loses their order: rows are locked in it.
"""


_RECONNECT_SECONDS = 20.0
"""How long a pool tries by itself to replace a lost connection, waiting twice as long each time;
then the next who asks makes it try anew. So the longest wait behind an outage is ten seconds,
however long that took: by default a pool may wait for minutes."""


def open_pool(
    url: str,
    *,
    connections_max: int,
    settings: str = "",
    check: Callable[[psycopg.Connection[Any]], None] | None = None,
) -> ConnectionPool:
    """Open a pool that grows from one connection; StoreUnavailable when none answers.

    `settings` are options of the server for each connection, such as BY_INDEX. A connection of
    which `check` raises is not handed out, another takes its place.
    """
    pool = ConnectionPool(
        url,
        min_size=1,
        max_size=connections_max,
        open=False,
        reconnect_timeout=_RECONNECT_SECONDS,
        configure=_assume_role,
        check=check,
        kwargs={"autocommit": False, "application_name": "tallystick", "options": settings},
    )
    try:
        pool.open(wait=True, timeout=30)
    except psycopg.Error as error:
        pool.close()
        raise StoreUnavailable("PostgreSQL does not answer") from error
    return pool


def require_quiet(connection: psycopg.Connection[Any]) -> None:
    """Close it and raise when there is something to read while it is idle: the server is gone.

    It asks the system alone: microseconds, where a question to the server is a round trip.
    """
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    if waiting.poll(0):
        connection.close()  # else the pool would take it back
        raise psycopg.OperationalError("the server has closed the connection")


def _assume_role(connection: psycopg.Connection[Any]) -> None:
    connection.execute(_ASSUME_ROLE)
    connection.commit()


async def _assume_role_async(connection: psycopg.AsyncConnection[Any]) -> None:
    await connection.execute(_ASSUME_ROLE)
    await connection.commit()


def make_async_pool(url: str, *, connections: int, settings: str = "") -> AsyncConnectionPool:
    """A pool for one event loop, to be opened in it."""
    return AsyncConnectionPool(
        url,
        min_size=connections,
        max_size=connections,
        open=False,
        reconnect_timeout=_RECONNECT_SECONDS,
        configure=_assume_role_async,
        timeout=10,
        kwargs={"application_name": "tallystick", "options": settings},
    )


@contextmanager
def transaction(pool: ConnectionPool) -> Iterator[psycopg.Connection[Any]]:
    """One transaction; StoreUnavailable when PostgreSQL cannot be reached.

    It is one for the tenant that this context acts for: rows of others are not there.
    """
    tenant_id = acting_for.get()
    try:
        with pool.connection() as connection:
            if tenant_id:
                connection.execute(_ACT_FOR, (tenant_id,))
            yield connection
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise StoreUnavailable("PostgreSQL cannot be reached") from error
    except psycopg.errors.InsufficientPrivilege as error:
        if not tenant_id:
            raise
        raise Forbidden("this belongs to another tenant", code="tenant_mismatch") from error


@contextmanager
def for_every_tenant() -> Iterator[None]:
    """Read for all tenants within: what a process keeps in memory is not one request's."""
    token = acting_for.set("")
    try:
        yield
    finally:
        acting_for.reset(token)


def load_migrations(store: str) -> list[tuple[str, str]]:
    """Return (name, SQL text) of every migration of "postgres" or "clickhouse", in order."""
    folder = files("tallystick.migrations").joinpath(store)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [(name, folder.joinpath(name).read_text("utf-8")) for name in names]


def digest_of(text: str) -> str:
    """Return the digest under which a migration is remembered."""
    return hashlib.sha256(text.encode()).hexdigest()


def require_same_digest(name: str, text: str, recorded: str) -> None:
    """Stop when a migration that already ran has other text now."""
    if recorded != digest_of(text):
        raise TallystickError(
            f"migration {name} was changed after it ran; add a new migration instead",
            code="migration_changed",
        )


def migrate_postgres(url: str) -> list[str]:
    """Bring the database up to date; return the names that were applied now."""
    applied: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
        connection.execute(_BOOKKEEPING)
        rows = connection.execute("SELECT name, digest FROM public.schema_migration").fetchall()
        done: dict[str, str] = {row[0]: row[1] for row in rows}
        for name, text in load_migrations("postgres"):
            if name in done:
                require_same_digest(name, text, done[name])
                continue
            with connection.transaction():
                connection.execute(text.encode())
                connection.execute(
                    "INSERT INTO public.schema_migration (name, digest) VALUES (%s, %s)",
                    (name, digest_of(text)),
                )
            applied.append(name)
    return applied
