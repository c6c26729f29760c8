"""The usage log in PostgreSQL: one row a batch, dense offsets, one lock that orders appends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from tallystick.errors import InvariantBroken, StoreUnavailable
from tallystick.plumbing.exchange import Statement, exchange_blocking
from tallystick.plumbing.log.columns import Columns
from tallystick.plumbing.log.model import Chunk, LogBatch, decode_packed, encode_payload
from tallystick.plumbing.log.packing import Column, join, unpack_all
from tallystick.plumbing.log.positions import Positions
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.plumbing.log", "log.sql").items()
}


APPEND_CONNECTIONS = 2
"""What appends need: one that finds the log further on reads it while it holds the head's lock."""

_BATCHES_PER_READ_MAX = 4_096
"""More than are appended between two steps of a follower, however small they are."""


class PostgresLog:
    """One partition of the usage log."""

    def __init__(self, pool: ConnectionPool, partition: int = 0) -> None:
        self._pool = pool
        self.partition = partition

    def append(
        self,
        event_count: int,
        columns: Columns,
        received_at: int,
        judge: Callable[[int], bytes],
        *,
        likely_start: int | None = None,
    ) -> int:
        """Append one batch durably; return the offset of its first event.

        `judge(offset_start)` returns one verdict byte an event, and its last answer counts. It
        is asked for `likely_start` first: one round trip is enough if that is the head. Else it
        is asked again when the head is known and locked. Raises StoreUnavailable; then nothing
        was appended, or (a lost answer) the batch stands and a resend is judged a duplicate.
        """
        with transaction(self._pool) as connection:

            def write(name: str, offset_start: int) -> bool:
                batch = self._batch(offset_start, event_count, columns, received_at, judge)
                append = Statement(_SQL[name], batch)
                ((written,),) = exchange_blocking(connection, [append], commits=True)
                return bool(written[0])

            if likely_start is not None and write("append_batch_at", likely_start):
                return likely_start
            lock = Statement(_SQL["lock_head"], {"partition": self.partition})
            (found,) = exchange_blocking(connection, [lock], commits=False)
            offset_start = self._found(found[0] if found else None)
            write("append_batch", offset_start)
        return offset_start

    def append_within(
        self,
        connection: psycopg.Connection[Any],
        event_count: int,
        columns: Columns,
        received_at: int,
        judge: Callable[[int], bytes],
    ) -> int:
        """Append inside a transaction of the caller: both stand or neither does."""
        offset_start = self._one(connection, "lock_head", {})
        batch = self._batch(offset_start, event_count, columns, received_at, judge)
        connection.execute(_SQL["append_batch"], batch)
        return offset_start

    def _batch(
        self,
        offset_start: int,
        event_count: int,
        columns: Columns,
        received_at: int,
        judge: Callable[[int], bytes],
    ) -> dict[str, Any]:
        return {
            "partition": self.partition,
            "offset_start": offset_start,
            "event_count": event_count,
            "received_at": received_at,
            "payload": encode_payload(columns, judge(offset_start)),
        }

    def head(self) -> int:
        """The offset that the next event will get."""
        with transaction(self._pool) as connection:
            return self._one(connection, "load_head", {})

    def read(self, position: int, *, batches_max: int, events_max: int = 1 << 31) -> list[LogBatch]:
        """Return batches in order, from the one that holds `position` on.

        At most `batches_max`, and no further ones once they hold `events_max` events.
        """
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(LogBatch), binary=True)
            arguments = {
                "partition": self.partition,
                "position": position,
                "batches_max": batches_max,
                "events_max": events_max,
            }
            return cursor.execute(_SQL["load_batches"], arguments).fetchall()

    def oldest_waiting(self, position: int) -> int | None:
        """When (micros) the first event at or after `position` arrived; None when none did."""
        with transaction(self._pool) as connection:
            return self._maybe(connection, "load_oldest_waiting", {"position": position})

    def _one(self, connection: psycopg.Connection[Any], name: str, more: dict[str, Any]) -> int:
        found = self._maybe(connection, name, more)
        return self._found(None if found is None else (found,))

    def _found(self, row: tuple[Any, ...] | None) -> int:
        if row is None:
            raise StoreUnavailable(f"the usage log has no partition {self.partition}")
        return int(row[0])

    def _maybe(
        self, connection: psycopg.Connection[Any], name: str, more: dict[str, Any]
    ) -> int | None:
        row = connection.execute(_SQL[name], {"partition": self.partition, **more}).fetchone()
        return int(row[0]) if row else None


class PostgresSource:
    """Reads partitions of the log in PostgreSQL for one follower."""

    def __init__(self, logs: Sequence[PostgresLog], positions: Positions, follower: str) -> None:
        self._logs = logs
        self._positions = positions
        self._follower = follower
        self._epoch = 0
        self._next: dict[int, int] | None = None

    def read(self, events_max: int) -> list[Chunk]:
        """Return the next deliveries of each partition; [] when there are no more."""
        if self._next is None:
            stored = self._positions.load(self._follower)
            self._next = {partition: stored[partition].offset for partition in stored}
        chunks = []
        for log in self._logs:
            start = self._next.get(log.partition, 0)
            batches = log.read(start, batches_max=_BATCHES_PER_READ_MAX, events_max=events_max)
            if batches:
                chunks.append(_chunk_of(batches, start, self._epoch))
                self._next[log.partition] = batches[-1].offset_end
        return chunks

    def confirm(self, connection: psycopg.Connection[Any], partitions: Sequence[int]) -> None:
        """Nobody else reads."""

    def rewind(self) -> None:
        """Begin again at the stored positions."""
        self._next = None
        self._epoch += 1

    def close(self) -> None:
        """Nothing is held."""


def _chunk_of(batches: Sequence[LogBatch], start: int, epoch: int) -> Chunk:
    decoded = [decode_packed(batch.payload) for batch in batches]
    counts = [batch.event_count for batch in batches]
    end = batches[-1].offset_end
    if end - batches[0].offset_start != sum(counts):
        raise InvariantBroken(f"INV-10: the log has a gap near offset {start}")
    columns: Sequence[Column] = join(
        [(count, columns) for count, (columns, _) in zip(counts, decoded, strict=True)]
    )
    verdicts = b"".join(verdicts for _, verdicts in decoded)
    skipped = max(start - batches[0].offset_start, 0)
    if skipped:
        values = unpack_all(columns, sum(counts))
        columns = [column if len(column) == 1 else column[skipped:] for column in values]
        verdicts = verdicts[skipped:]
    offsets = range(batches[0].offset_start + skipped, end)
    return Chunk(batches[0].partition, epoch, offsets, columns, verdicts, end)
