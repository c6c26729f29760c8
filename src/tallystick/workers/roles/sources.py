"""Where a follower of the log reads: PostgreSQL's batches, or its share of Kafka's partitions.

Corrections are always in PostgreSQL. With Kafka they are one more partition, read by the
process that has the lease for it.
"""

from __future__ import annotations

from pathlib import Path

from tallystick.events.appending import seal_key
from tallystick.events.dedup import REMEMBERED_FOR
from tallystick.events.sources import JoinedSource, KafkaSource, Known, LeasedSource
from tallystick.plumbing.leases import Leases
from tallystick.plumbing.log import CORRECTIONS, KnownHorizons, PostgresLog, PostgresSource, Source
from tallystick.plumbing.log.kafka import KafkaOptions
from tallystick.workers.roles.parts import Parts


def open_source(
    parts: Parts, follower: str, leases: Leases | None, known: Known, *, sets_aside: bool
) -> Source:
    """The log for `follower`; `known` says what it already has, `sets_aside` broken messages."""
    corrections = PostgresLog(parts.pool, CORRECTIONS)
    kafka = parts.options.kafka
    if kafka is None or leases is None:
        return PostgresSource([PostgresLog(parts.pool), corrections], parts.positions, follower)
    source = JoinedSource(
        {
            _is_topic: _kafka_source(parts, kafka, follower, leases, known, sets_aside=sets_aside),
            _is_corrections: LeasedSource(
                PostgresSource([corrections], parts.positions, follower),
                leases,
                f"{follower}/{CORRECTIONS}",
            ),
        }
    )
    parts.opened.callback(source.close)
    return source


def remembered_since(parts: Parts) -> int:
    """Since when an index would remember what was received."""
    return parts.clock.now() - REMEMBERED_FOR


def _kafka_source(
    parts: Parts,
    kafka: KafkaOptions,
    follower: str,
    leases: Leases,
    known: Known,
    *,
    sets_aside: bool,
) -> KafkaSource:
    options = parts.options
    return KafkaSource(
        kafka,
        parts.writer(kafka) if sets_aside else None,
        parts.positions,
        leases,
        follower=follower,
        instance_id=f"{options.instance_id}-{follower}",
        folder=Path(options.data) / f"dedup-{follower}",
        redactor=parts.redactor(),
        key=seal_key(options.redaction_key),
        known=known,
        closed_before=KnownHorizons(parts.pool, parts.clock).closed_before,
    )


def _is_corrections(partition: int) -> bool:
    return partition == CORRECTIONS


def _is_topic(partition: int) -> bool:
    return partition != CORRECTIONS
