"""The roles that turn the log into numbers, and the end of facts that are too old."""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.analytics.horizon import KeptFacts
from tallystick.analytics.store import FactStore
from tallystick.archive import ArchiveSource, identities_in
from tallystick.backfill import Pieces
from tallystick.events.batch import Identity
from tallystick.plumbing.log import Horizons, PostgresLog
from tallystick.plumbing.log.heads import PostgresHeads, open_heads
from tallystick.plumbing.log.kafka import Watermarks
from tallystick.reconcile.doubles import Doubles
from tallystick.workers.archiver import Archiver
from tallystick.workers.backfills import BackfillWorker
from tallystick.workers.charger import Charger
from tallystick.workers.expiry import Expiry
from tallystick.workers.fenced import Fenced
from tallystick.workers.loop import Follower
from tallystick.workers.pending import SHARDS, PendingRuns
from tallystick.workers.restore import Restorer, RestoreThenFollow
from tallystick.workers.roles.parts import Parts
from tallystick.workers.roles.sharing import Alone
from tallystick.workers.roles.sources import open_source, remembered_since
from tallystick.workers.rollups import Rollups
from tallystick.workers.sink import Sink


def sink(parts: Parts) -> Follower:
    """Facts, of this process's share of the log."""
    options = parts.options
    leases = parts.leases("sink") if options.kafka else None
    facts = parts.facts(leases if options.is_shared else None)
    source = open_source(
        parts,
        "sink",
        leases,
        lambda *range_: _landed(facts, remembered_since(parts), *range_),
        sets_aside=options.broken_by == "sink",
    )
    follower: Follower = Sink(
        source, parts.positions, facts, parts.catalog, parts.pool, parts.clock
    )
    if options.is_restoring:
        follower = RestoreThenFollow(_restorer(parts, facts), follower)
    return Fenced(follower, leases) if leases else follower


def rollups(parts: Parts) -> Follower:
    """Rollups of all facts, in one process at a time."""
    leases = parts.leases("rollups") if parts.options.is_shared else None
    follower = Rollups(parts.positions, parts.facts(leases), parts.clock)
    return Fenced(Alone(follower, leases), leases) if leases else follower


def archiver(parts: Parts) -> Follower:
    """Parquet objects of every delivery; needs no ClickHouse."""
    options, archive = parts.options, parts.archive()
    return Archiver(
        open_source(
            parts,
            "archiver",
            parts.leases("archiver", has_fence=False) if options.kafka else None,
            lambda *range_: identities_in(archive, *range_, since=remembered_since(parts)),
            sets_aside=False,
        ),
        parts.positions,
        archive,
        parts.clock,
        days=options.archive_days,
        flush_seconds=options.archive_flush_seconds,
    )


def charger(parts: Parts) -> Follower:
    """Charges, for a share of the runs."""
    leases = parts.leases("charger") if parts.options.is_shared else None

    def shards() -> Sequence[int]:
        return leases.share("charger/", SHARDS) if leases else range(SHARDS)

    charger = Charger(
        PendingRuns(parts.pool),
        parts.facts(leases),
        parts.catalog,
        parts.ledger,
        parts.clock,
        shards,
    )
    return Fenced(charger, leases) if leases else charger


def backfills(parts: Parts) -> Follower:
    """Pieces of backfills, and events that came under two runs."""
    store, kafka = parts.clickhouse(), parts.options.kafka
    heads = (Watermarks(kafka) if kafka else PostgresHeads([PostgresLog(parts.pool)])).heads
    pieces = Pieces(parts.pool, store, parts.catalog, parts.clock, heads)
    return BackfillWorker(pieces, Doubles(parts.pool, store, parts.clock), parts.clock)


def expiry(parts: Parts) -> Follower:
    """The end of facts that are older than they are kept."""
    options = parts.options
    return Expiry(
        Horizons(parts.pool),
        open_heads(parts.pool, options.kafka).heads,
        parts.positions,
        PendingRuns(parts.pool),
        KeptFacts(parts.clickhouse(), options.clickhouse_cluster),
        parts.clock,
        days=options.facts_days,
    )


def _restorer(parts: Parts, facts: FactStore) -> Restorer:
    source = ArchiveSource(parts.archive(), parts.positions, "sink")
    return Restorer(source, parts.positions, facts, parts.catalog, parts.pool, parts.clock)


def _landed(
    facts: FactStore, since: int, partition: int, start: int, end: int
) -> list[tuple[Identity, int]]:
    rows = facts.query_landed_identities(partition, start, end, since)
    return [
        (
            (f"{row['tenant_id']}\0{row['event_id']}".encode(), bytes.fromhex(row["digest"])),
            int(row["log_offset"]),
        )
        for row in rows
    ]
