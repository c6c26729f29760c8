"""Identities of what the vault read from Kafka lately: a lost index is rebuilt from them.

The log in PostgreSQL carries its verdicts; Kafka's must be judged again by whoever reads it. What
an index holds is not in the transaction that stores sums and positions, these rows are: whatever
is lost or crashes, the same delivery gets the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import zstandard
from psycopg_pool import ConnectionPool

from tallystick.enforcement.vault.model import Connection
from tallystick.events.batch import Identity
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.vault", "seen.sql").items()
}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(tuple[list[bytes], list[bytes], list[int]])


class Seen:
    """Identities of originals, a row a chunk."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def add(
        self,
        connection: Connection,
        partition: int,
        originals: Sequence[tuple[Identity, int]],
        ends: tuple[int, int],
        now: int,
    ) -> None:
        """Remember the originals of a chunk [start, end), in the step's transaction."""
        keys = [key for (key, _), _ in originals]
        digests = [digest for (_, digest), _ in originals]
        packed = _encoder.encode((keys, digests, [offset for _, offset in originals]))
        arguments = {
            "partition": partition,
            "offset_start": ends[0],
            "offset_end": ends[1],
            "seen_at": now,
            "identities": zstandard.ZstdCompressor(level=1).compress(packed),
        }
        connection.execute(_SQL["add_seen"], arguments)

    def known(self, partition: int, start: int, end: int) -> Iterator[tuple[Identity, int]]:
        """Originals of a range, with the offsets where they were first seen."""
        arguments = {"partition": partition, "start": start, "end": end}
        with transaction(self._pool) as connection:
            rows = connection.execute(_SQL["load_seen"], arguments).fetchall()
        for (identities,) in rows:
            unpacked = zstandard.ZstdDecompressor().decompress(identities)
            for key, digest, offset in zip(*_decoder.decode(unpacked), strict=True):
                if start <= offset < end:
                    yield (key, digest), offset

    def forget(self, before: int) -> None:
        """Delete what an index would have forgotten too (micros)."""
        with transaction(self._pool) as connection:
            connection.execute(_SQL["forget_seen"], {"before": before})
