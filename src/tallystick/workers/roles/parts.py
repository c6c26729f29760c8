"""What one process of workers holds open: connections, leases, writers, and ways into the log.

Each is opened when a role asks for it and let go at the end, in the reverse order: what was
made later uses what was made before.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from psycopg_pool import ConnectionPool

from tallystick.analytics.store import FactStore
from tallystick.archive import Archive
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.errors import InvalidInput
from tallystick.events.appending import Appender, JudgingAppender, KafkaAppender, seal_key
from tallystick.events.dedup import DedupIndex
from tallystick.events.redaction import Redactor
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.leases import Leases
from tallystick.plumbing.log import CORRECTIONS, Positions, PostgresLog
from tallystick.plumbing.log.kafka import KafkaOptions, KafkaWriter
from tallystick.plumbing.objects import open_objects
from tallystick.plumbing.postgres import BY_INDEX, open_pool
from tallystick.workers.options import EngineOptions


class Parts:
    """Opens what roles are built from; `close` lets everything go."""

    def __init__(self, options: EngineOptions, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self.opened = ExitStack()
        self.pool = open_pool(options.postgres_url, connections_max=8)
        self.opened.callback(self.pool.close)
        self.positions = Positions(self.pool)
        self.catalog = Catalog(self.pool)
        self.ids = Uuid7Source(clock)
        self.ledger = Ledger(self.pool, clock, self.ids)

    def close(self) -> None:
        """Let everything go; the loops have stopped before."""
        self.opened.close()

    def pool_by_index(self) -> ConnectionPool:
        """One connection whose every statement looks rows up by index."""
        url = self.options.postgres_url
        pool = open_pool(url, connections_max=1, settings=BY_INDEX)
        self.opened.callback(pool.close)
        return pool

    def clickhouse(self, timeout_seconds: float | None = None) -> ClickHouse:
        """A connection of its own: threads do not wait for each other."""
        store = ClickHouse(self.options.clickhouse_url, timeout_seconds=timeout_seconds)
        self.opened.callback(store.close)
        return store

    def facts(self, leases: Leases | None = None) -> FactStore:
        """The facts, over a connection of its own.

        With `leases`, it writes only while they are its own, and only what they are for.
        """
        seconds = self.options.lease_seconds / 3 if self.options.is_shared else None
        return FactStore(self.clickhouse(seconds), leases.epochs if leases is not None else None)

    def archive(self) -> Archive:
        """The archive that all processes share."""
        if not self.options.archive_url:
            raise InvalidInput(
                "TALLYSTICK_ARCHIVE_URL must be set: archivers share it", field="archive_url"
            )
        return Archive(open_objects(self.options.archive_url))

    def logs(self) -> list[PostgresLog]:
        """What of the log is in PostgreSQL: corrections always are."""
        corrections = PostgresLog(self.pool, CORRECTIONS)
        return [corrections] if self.options.kafka else [PostgresLog(self.pool), corrections]

    def redactor(self) -> Redactor:
        """What takes content out of events."""
        options = self.options
        return Redactor(options.redaction_key.encode(), hash_user_ids=options.hash_user_ids)

    def writer(self, kafka: KafkaOptions) -> KafkaWriter:
        """A writer into topics."""
        writer = KafkaWriter(kafka)
        self.opened.callback(writer.close)
        return writer

    def appender(self) -> Appender:
        """A way into the log for what this process must add itself."""
        options = self.options
        if options.kafka is None:
            index = DedupIndex(Path(options.data) / "dedup-calls")
            self.opened.callback(index.close)
            return JudgingAppender(PostgresLog(self.pool), index)
        writer = self.writer(options.kafka)
        return KafkaAppender(writer, options.kafka.topic, seal_key(options.redaction_key))

    def leases(self, lane: str, *, has_fence: bool = True) -> Leases:
        """Each lane has an owner of its own: what one lets go another must not think it has.

        What writes nothing to ClickHouse needs no fence there.
        """
        owner = f"{self.options.instance_id}/{lane}/{self.ids.next_id()}"
        seconds = self.options.lease_seconds
        facts = self.facts()

        def announce(epochs: Mapping[str, int]) -> None:
            facts.announce(epochs)
            if any(epoch > 1 for epoch in epochs.values()):
                time.sleep(seconds / 3)  # a request of the one before that had begun ends by then

        leases = Leases(
            self.pool,
            owner,
            seconds=seconds,
            announce=announce if has_fence and self.options.is_shared else None,
        )
        self.opened.callback(leases.release_all)
        return leases
