"""Limits in PostgreSQL, and levels there where several processes share them.

A block is lent in one transaction that holds the bucket's row: refill by the database's clock,
decide by the same rules as in memory, write what is left. So all processes together are granted
what one would be.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from tallystick.clock import Clock
from tallystick.enforcement.rates.lanes import Lent
from tallystick.enforcement.rates.model import RateLimit
from tallystick.enforcement.rates.rules import SCALE, Bucket
from tallystick.errors import NotFound
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.rates", "store.sql").items()
}


class RateLimitStore:
    """Rows of limits."""

    def __init__(self, pool: ConnectionPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    def load(self, tenant_id: str = "") -> tuple[RateLimit, ...]:
        """Limits of a tenant, or all."""
        with (
            transaction(self._pool) as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            rows = cursor.execute(_SQL["load_limits"], {"tenant_id": tenant_id}).fetchall()
        return tuple(msgspec.convert(row, RateLimit) for row in rows)

    def put(self, limit: RateLimit, by: str) -> None:
        """Make a limit, or give it other numbers."""
        arguments = msgspec.structs.asdict(limit) | {"now": self._clock.now(), "by": by}
        with transaction(self._pool) as connection:
            connection.execute(_SQL["put_limit"], arguments)

    def delete(self, tenant_id: str, limit_id: str) -> None:
        """Take a limit away; NotFound."""
        arguments = {"tenant_id": tenant_id, "limit_id": limit_id}
        with transaction(self._pool) as connection:
            if connection.execute(_SQL["delete_limit"], arguments).fetchone() is None:
                raise NotFound("there is no such rate limit")


class PostgresLender:
    """Lends blocks of shared buckets."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def lend(self, bucket_id: str, limit: RateLimit, need: int, block: int) -> Lent:
        """Take a block of at least `need` units, or nothing."""
        return await asyncio.to_thread(self._lend, bucket_id, limit, need, block)

    async def give_back(self, bucket_id: str, limit: RateLimit, units: int) -> None:
        """Correct the shared bucket; negative takes more."""
        await asyncio.to_thread(self._give_back, bucket_id, limit, units)

    async def close(self) -> None:
        """The pool is its owner's."""

    def _lend(self, bucket_id: str, limit: RateLimit, need: int, block: int) -> Lent:
        with transaction(self._pool) as connection:
            bucket = _locked(connection, bucket_id, limit)
            if bucket.lacks(need):
                return Lent(0, bucket.level)
            units = max(need, min(block, bucket.level // SCALE))
            bucket.add(-units)
            _keep(connection, bucket_id, bucket)
            return Lent(units, bucket.level)

    def _give_back(self, bucket_id: str, limit: RateLimit, units: int) -> None:
        with transaction(self._pool) as connection:
            bucket = _locked(connection, bucket_id, limit)
            bucket.add(units)
            _keep(connection, bucket_id, bucket)


def _locked(connection: psycopg.Connection[Any], bucket_id: str, limit: RateLimit) -> Bucket:
    """A shared bucket, refilled to now and ours until the transaction ends."""
    arguments = {"bucket_id": bucket_id, "level": limit.burst * SCALE}
    row = connection.execute(_SQL["lock_bucket"], arguments).fetchone()
    if row is None:
        connection.execute(_SQL["open_bucket"], arguments)
        row = connection.execute(_SQL["lock_bucket"], arguments).fetchone()
    now = connection.execute(_SQL["database_now"]).fetchone()
    if row is None or now is None:
        raise NotFound("the rate limit's bucket is gone")
    bucket = Bucket(limit.per_minute, limit.burst, row[1])
    bucket.level = min(row[0], bucket.level)
    bucket.refill(now[0])
    return bucket


def _keep(connection: psycopg.Connection[Any], bucket_id: str, bucket: Bucket) -> None:
    arguments = {"bucket_id": bucket_id, "level": bucket.level, "filled_at": bucket.at}
    connection.execute(_SQL["set_level"], arguments)
