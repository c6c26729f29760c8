"""Windows that are over: once nothing more can count in them, the vault forgets their runs.

A window closes KEPT_FOR after its end: the late window and some, as long as identities are
remembered. By then the vault must have read all that had come to the log, and nothing in the
window may wait to be counted or for a hold to end. From then on what the ledger says was used
stands: what still comes for the window counts in it no more, in a replay neither, and the rows
of it are deleted in pieces. How far windows are closed only goes forward, and survives a replay
as the ledger's figures do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from psycopg_pool import ConnectionPool

from tallystick.clock import HOUR
from tallystick.enforcement.vault.model import FOLLOWER, Connection
from tallystick.enforcement.vault.store import VaultStore
from tallystick.events.dedup import REMEMBERED_FOR
from tallystick.plumbing.log import Positions
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.vault", "ended.sql").items()
}
KEPT_FOR = REMEMBERED_FOR
"""How long after its end a window counts what still comes for it."""

_CLOSE_EVERY = HOUR
"""How often windows close: a clock that was ahead for less closes none."""

_ROWS_PER_LOOK = 2_000
_WINDOWS_PER_LOOK = 200
"""How much is forgotten under one lock of the vault."""

_CLOSED = "vault-closed"
"""Up to when windows are closed (micros), kept beside positions."""


class EndedWindows:
    """Closes windows that ended long enough ago, and forgets what the vault kept of them."""

    def __init__(
        self, pool: ConnectionPool, store: VaultStore, heads: Callable[[], Mapping[int, int]]
    ) -> None:
        """`heads` tells the ends of every partition of the log."""
        self._pool = pool
        self._store = store
        self._positions = Positions(pool)
        self._heads = heads
        self._seen: tuple[int, Mapping[int, int]] | None = None
        """A moment, and where the log ended then."""
        self._forgotten = ("", "")
        """A window of which a part is forgotten, and up to which source."""

    def closed_at(self, connection: Connection) -> int:
        """Windows that ended by then are closed; it does not move while the vault is locked."""
        return self._store.positions(connection, _CLOSED).get(0, 0)

    def look(self, now: int) -> None:
        """Close what has become old enough, and forget a piece of what is closed."""
        goal = self._goal(now)
        with transaction(self._pool) as connection:
            self._store.begin(connection, {}, ())
            if goal is not None:
                arguments = {"follower": _CLOSED, "goal": goal, "now": now}
                connection.execute(_SQL["close_windows"], arguments)
            forgotten = self._forget(connection)
        self._forgotten = forgotten

    def _goal(self, now: int) -> int | None:
        """Up to when windows may close now; None when it is not time."""
        if self._seen is None or now < self._seen[0]:
            self._seen = now, self._heads()
        at, ends = self._seen
        if now - at < _CLOSE_EVERY or not self._positions.has_reached(FOLLOWER, ends):
            return None
        self._seen = now, self._heads()
        return at - KEPT_FOR

    def _forget(self, connection: Connection) -> tuple[str, str]:
        """Forget a piece of closed windows; return where it ended, within a window."""
        arguments: dict[str, Any] = {"follower": _CLOSED, "windows": _WINDOWS_PER_LOOK}
        windows = connection.execute(_SQL["load_ended"], arguments).fetchall()
        if not windows:
            return "", ""
        connection.execute(_SQL["read_in_order"])
        left, whole = _ROWS_PER_LOOK, []
        end = ("", "")
        for (limit_id,) in windows:
            after = self._forgotten[1] if limit_id == self._forgotten[0] else ""
            arguments = {"limit_id": limit_id, "after": after, "rows": left}
            ((count, last),) = connection.execute(_SQL["forget_runs"], arguments).fetchall()
            left -= count
            if not left:
                end = (limit_id, last)
                break
            whole.append(limit_id)
        connection.execute(_SQL["forget_windows"], {"limit_ids": whole})
        return end
