"""A log with an archiver beside it, on real stores, moved step by step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from tallystick.archive import Archive, ArchiveSource, verify_archive
from tallystick.clock import HOUR
from tallystick.events.model import Event
from tallystick.plumbing.log import Chunk, PostgresLog, PostgresSource
from tallystick.plumbing.log.columns import columns_of_rows
from tallystick.workers.archiver import Archiver
from tallystick.workers.restore import Restorer
from tests.world import World

START = 1_795_000_000_000_000 // HOUR * HOUR
_decoder = msgspec.msgpack.Decoder(list[list[Any]])


def make_rows(count: int, *, seed: int = 0, hours: int = 1) -> list[list[Any]]:
    """Rows as the log has them, spread over some hours of receipt."""
    rng = random.Random(seed)
    events = [
        Event(
            event_id=f"e-{seed}-{number}",
            event_type=rng.choice(["token_usage", "tool_call_finished", "run_completed"]),
            occurred_at=START + number,
            received_at=START + number * hours * HOUR // count,
            tenant_id=f"t{number % 3}",
            run_id=f"r{number % 7}",
            provider="openai",
            model=rng.choice(["gpt-4o", "gpt-4o-mini", "unknown"]),
            tokens_input=rng.randrange(10_000),
            latency_ms=rng.choice([None, 12.5, 800.0]),
            attrs=rng.choice(["", '{"a":1}']),
            content_digest=rng.randbytes(16),
        )
        for number in range(count)
    ]
    return _decoder.decode(msgspec.msgpack.encode(events))


def append(log: PostgresLog, rows: Sequence[list[Any]], verdicts: bytes = b"") -> int:
    """Append one batch; returns its first offset."""
    columns = columns_of_rows(rows)
    return log.append(len(rows), columns, START, lambda _: verdicts or bytes(len(rows)))


def make_archiver(world: World, archive: Archive, **more: Any) -> Archiver:
    source = PostgresSource([world.log, world.corrections], world.positions, "archiver")
    return Archiver(source, world.positions, archive, world.clock, **more)


def archive_all(archiver: Archiver) -> None:
    while archiver.step():
        pass
    archiver.flush()


def read_log(world: World) -> list[tuple[int, int, list[Any], int]]:
    """(partition, offset, row, verdict) of every delivery, partition by partition."""
    found = []
    for log in (world.log, world.corrections):
        source = PostgresSource([log], world.positions, "nobody")
        while chunks := source.read(1000):
            found += _flat(chunks)
    return found


def read_archive(
    world: World, archive: Archive, events_max: int = 1000, follower: str = "nobody"
) -> list[tuple[int, int, list[Any], int]]:
    source = ArchiveSource(archive, world.positions, follower)
    found = []
    while chunks := source.read(events_max):
        assert all(len(chunk.rows) <= events_max for chunk in chunks)
        found += _flat(chunks)
    source.close()
    return found


def _flat(chunks: Sequence[Chunk]) -> list[tuple[int, int, list[Any], int]]:
    return [
        (chunk.partition, offset, row, verdict)
        for chunk in chunks
        for offset, row, verdict in zip(chunk.offsets, chunk.rows, chunk.verdicts, strict=True)
    ]


def require_exact(world: World, archive: Archive) -> None:
    """The archive is whole and holds exactly what the log holds."""
    assert verify_archive(archive).violations == []
    assert read_archive(world, archive) == read_log(world)


def restore(world: World, archive: Archive) -> None:
    """Wipe what is derived and take in the archive."""
    from tallystick.workers.engine import wipe_derived

    wipe_derived(world.positions, world.facts)
    source = ArchiveSource(archive, world.positions, "sink")
    restorer = Restorer(
        source, world.positions, world.facts, world.catalog, world.pool, world.clock
    )
    while restorer.step():
        pass
    restorer.close()
    world.restart_followers()


def stored_facts(world: World) -> list[dict[str, Any]]:
    """Every column of every fact and delivery, in one order."""
    query = world.facts._store.query_rows
    order = "ORDER BY log_partition, log_offset, sign, cost_version"
    digest = "hex(content_digest) AS content_digest"
    facts = query(f"SELECT * EXCEPT content_digest, {digest} FROM tallystick.facts {order}")
    return facts + query("SELECT * FROM tallystick.deliveries ORDER BY log_partition, log_offset")
