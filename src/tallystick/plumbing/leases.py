"""Leases: who may work on what, for a while, when several processes could.

A lease is a row in PostgreSQL with an owner and a deadline by the database's clock. Who dies
without a word loses it at the deadline; whoever takes it over waits until then. The owner
counts its own deadline from before it asked, so it stops believing in time. Work that goes
elsewhere than PostgreSQL is fenced by the lease's epoch (FactStore): `keep` the lease first, and
bound a request by a third of its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from tallystick.errors import LeaseLost
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

LEASE_SECONDS = 30.0
"""What the death of a process costs the others in freshness."""

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.plumbing", "leases.sql").items()
}


class Leases:
    """Leases of one owner; `owner` is different in every process and at every start."""

    def __init__(
        self,
        pool: ConnectionPool,
        owner: str,
        *,
        seconds: float = LEASE_SECONDS,
        announce: Callable[[Mapping[str, int]], None] | None = None,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        """`announce` is told of leases that came to us, with their epochs, before they count."""
        self._pool = pool
        self._owner = owner
        self.seconds = seconds
        self._announce = announce
        self._tick = tick
        self._until: dict[str, float] = {}
        self._epochs: dict[str, int] = {}

    def take(self, names: Iterable[str]) -> set[str]:
        """Take or renew leases; return those of the names that are ours now."""
        wanted = sorted(set(names))
        if not wanted:
            return set()
        asked_at = self._tick()
        arguments = {"names": wanted, "owner": self._owner, "seconds": self.seconds}
        with transaction(self._pool) as connection:
            ours = dict(connection.execute(_SQL["take_leases"], arguments).fetchall())
        fresh = {name: epoch for name, epoch in ours.items() if self._epochs.get(name) != epoch}
        if fresh and self._announce is not None:
            self._announce(fresh)
        self._epochs.update(ours)
        for name in wanted:
            if name in ours:
                self._until[name] = asked_at + self.seconds
            else:
                self._until.pop(name, None)
        return set(ours)

    def epochs(self) -> dict[str, int]:
        """The leases that we took, with their epochs: also those whose time is over.

        Who takes one over is known by a greater epoch; to leave it out would be to write without.
        """
        return {name: self._epochs[name] for name in self._until}

    def keep(self, names: Iterable[str]) -> None:
        """Renew what has less than two thirds of its time left; raise LeaseLost when taken."""
        due = [name for name in names if self.left(name) < self.seconds * 2 / 3]
        if due and (lost := sorted(set(due) - self.take(due))):
            raise LeaseLost(f"another process works on {', '.join(lost)} now")

    def left(self, name: str) -> float:
        """Seconds for which a lease is ours for certain."""
        return self._until.get(name, 0.0) - self._tick()

    def require(self, connection: psycopg.Connection[Any], names: Sequence[str]) -> None:
        """Raise LeaseLost unless all are still ours, and keep them so in this transaction."""
        arguments = {"names": list(names), "owner": self._owner}
        row = connection.execute(_SQL["count_owned"], arguments).fetchone()
        if row is None or row[0] != len(set(names)):
            raise LeaseLost("another process has taken over what this one was working on")

    def release(self, names: Iterable[str]) -> None:
        """Let leases go at once, so that nobody has to wait for their deadline."""
        mine = [name for name in names if name in self._until]
        if mine:
            with transaction(self._pool) as connection:
                arguments = {"names": mine, "owner": self._owner}
                connection.execute(_SQL["release_leases"], arguments)
            for name in mine:  # not before: until then they are ours, and to be let go again
                self._until.pop(name, None)

    def release_all(self) -> None:
        """Let everything go."""
        self.release(list(self._until))

    def share(self, prefix: str, count: int) -> list[int]:
        """Our fair share of `count` leases named prefix + number: taken, renewed, or let go."""
        arguments = {"prefix": prefix, "owner": self._owner}
        with transaction(self._pool) as connection:
            row = connection.execute(_SQL["count_owners"], arguments).fetchone()
        most = -(-count // max(int(row[0]) if row else 1, 1))
        for name in [one for one in self._until if one.startswith(prefix) and self.left(one) <= 0]:
            del self._until[name]
        held = [number for number in range(count) if self.left(f"{prefix}{number}") > 0]
        self.release(f"{prefix}{number}" for number in held[most:])
        names = [f"{prefix}{number}" for number in held[:most]]
        ours = self.take(names)
        for number in range(count):
            if len(ours) >= most:
                break
            if f"{prefix}{number}" not in ours:
                ours |= self.take([f"{prefix}{number}"])
        return sorted(int(name.removeprefix(prefix)) for name in ours)
