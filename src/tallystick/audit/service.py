"""The trail: records go out in groups, by one connection of the event loop.

A record of a change or a denial is waited for; the others are written by the next group. The
queue is bounded: when PostgreSQL cannot keep up, requests wait rather than go unrecorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from tallystick.audit.model import TEXTS, Record, storable
from tallystick.errors import SlowDown, StoreUnavailable
from tallystick.plumbing.arrays import int_array, text_array
from tallystick.plumbing.exchange import Statement, exchange
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = load_statements("tallystick.audit", "store.sql")
_INSERT = _SQL["insert_records"].encode()
_GROUP_SECONDS = 0.05
_WAITING_MAX = 50_000
_FOLDED_MAX = 1_000
_FOLD_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)

SEALED = (
    "SELECT 'audit/' || r.record_id AS name, sha256(convert_to(ROW(r.record_id, r.at, r.tenant_id, "
    "r.subject, r.service_id, r.cost_center, r.method, r.route, r.target, r.status, r.decision, "
    "r.code, r.remote, r.requests, r.duration_us, r.transaction)::text, 'UTF8')) AS leaf, "
    "r.transaction FROM audit.record r"
)
"""What the seals of the ledger cover besides operations: (name, leaf, transaction)."""


class AuditTrail:
    """Writes records from one event loop, and finds them again from any thread."""

    def __init__(self, pool: ConnectionPool, writing: AsyncConnectionPool) -> None:
        """`writing` is not open yet and has one connection."""
        self._pool = pool
        self._writing = writing
        self._waiting: deque[Record] = deque()
        self._folded: dict[tuple[str, str], Record] = {}
        self._folded_at = 0.0
        self._arrived = asyncio.Event()
        self._written: asyncio.Future[None] | None = None
        self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and begin; call in the event loop."""
        await self._writing.open()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Write what waits, then stop."""
        self._is_closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        await self._writing.close()

    def check_room(self) -> None:
        """Raise SlowDown when too much waits to be written."""
        if len(self._waiting) >= _WAITING_MAX:
            raise SlowDown("the audit trail cannot be written fast enough; try again later")

    def note(self, record: Record, *, has_room: bool = False) -> None:
        """Record something within a tenth of a second; SlowDown when too much waits.

        `has_room` is for what was begun after `check_room`, and cannot be refused any more.
        """
        if not has_room:
            self.check_room()
        self._waiting.append(storable(record))
        self._arrived.set()

    async def write(self, record: Record) -> None:
        """Record something; returns once it is durable."""
        self.note(record)
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._written)

    def fold(self, record: Record) -> None:
        """Count a request without a valid key: one record an address and route in a while.

        So whoever guesses keys cannot fill the disk with refusals.
        """
        name = (record.remote, record.route) if len(self._folded) < _FOLDED_MAX else ("", "")
        known = self._folded.get(name)
        if known is None:
            self._folded[name] = storable(record._replace(remote=name[0], target=""))
        else:
            self._folded[name] = known._replace(requests=known.requests + record.requests)
        self._arrived.set()

    async def _run(self) -> None:
        while not (self._is_closing and not self._waiting and not self._folded):
            if not self._is_closing:
                await self._arrived.wait()
                await asyncio.sleep(0 if self._written else _GROUP_SECONDS)
            self._arrived.clear()
            now = asyncio.get_running_loop().time()
            if self._folded and (self._is_closing or now - self._folded_at > _FOLD_SECONDS):
                self._waiting.extend(self._folded.values())
                self._folded.clear()
                self._folded_at = now
            group, self._waiting = self._waiting, deque()
            written, self._written = self._written, None
            if group and not await self._append(group):
                self._waiting.extendleft(reversed(group))
                if written is not None:
                    written.set_exception(StoreUnavailable("the audit trail cannot be written"))
                    written.exception()
                if self._is_closing:
                    _log.error("%d audit records could not be written", len(self._waiting))
                    return
                await asyncio.sleep(_RETRY_SECONDS)
                self._arrived.set()
            elif written is not None:
                written.set_result(None)

    async def _append(self, group: deque[Record]) -> bool:
        try:
            await self._insert(group)
        except (psycopg.OperationalError, PoolTimeout) as error:
            _log.warning("audit: %s; trying again", error)
            return False
        except Exception:
            if len(group) == 1:
                _log.exception("an audit record cannot be written: %r", group[0])
                return True
            # one of them spoils the group: each alone, so that no other waits for it for ever
            for record in group:
                if not await self._append(deque([record])):
                    self._waiting.append(record)
        return True

    async def _insert(self, group: deque[Record]) -> None:
        columns = zip(Record._fields, zip(*group, strict=True), strict=True)
        arguments = {
            name: text_array(values) if name in TEXTS else int_array(values)
            for name, values in columns
        }
        connection = await self._writing.getconn()
        try:
            await exchange(connection, [Statement(_INSERT, arguments)], commits=True)
        finally:
            await self._writing.putconn(connection)

    def search(
        self,
        *,
        tenant_id: str,
        from_at: int,
        to_at: int,
        before: int,
        limit: int,
        filters: dict[str, str],
    ) -> list[dict[str, Any]]:
        """Records in [from_at, to_at) with an id below `before`, newest first.

        `filters`: subject, service_id, route, decision. "" as tenant is every tenant.
        """
        arguments = dict.fromkeys(("subject", "service_id", "route", "decision"), "") | filters
        arguments |= {"tenant_id": tenant_id}
        numbers = {"from_at": from_at, "to_at": to_at, "before": before, "limit": limit}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            return cursor.execute(_SQL["search"].encode(), {**arguments, **numbers}).fetchall()
