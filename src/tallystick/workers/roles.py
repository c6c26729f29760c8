"""What each role of the distributed form runs, and how processes of one role share the work.

`serve` runs every role in its engine. `tallystick worker ROLE` runs one, in as many processes
as wanted: Kafka's partitions are spread by its consumer group, shards of runs and single
lanes by leases; a process that dies loses its share when its leases end.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from psycopg_pool import ConnectionPool

from tallystick.analytics.store import FactStore
from tallystick.archive import Archive, ArchiveSource, identities_in
from tallystick.audit import SEALED
from tallystick.backfill import Pieces
from tallystick.catalog import Catalog
from tallystick.clock import Clock
from tallystick.enforcement.alerts import AlertStore
from tallystick.enforcement.alerts.delivery import Delivery
from tallystick.enforcement.alerts.outbox import Outbox
from tallystick.enforcement.alerts.sealing import Sealing
from tallystick.enforcement.alerts.sending import Sender, read_mail_server
from tallystick.enforcement.allowed_rates import AllowedRates
from tallystick.enforcement.budgets import Budgets
from tallystick.enforcement.budgets.crossing import Crossings
from tallystick.enforcement.calls.facts import CallFacts
from tallystick.enforcement.calls.recovery import CallRecovery
from tallystick.enforcement.calls.store import CallStore
from tallystick.enforcement.overrun.reader import FactSeries
from tallystick.enforcement.quotas import BudgetAssignments
from tallystick.enforcement.vault import Counting, Seen, VaultStore
from tallystick.errors import InvalidInput
from tallystick.events.appending import Appender, JudgingAppender, KafkaAppender, seal_key
from tallystick.events.batch import Identity
from tallystick.events.dedup import REMEMBERED_FOR, DedupIndex
from tallystick.events.redaction import Redactor
from tallystick.events.sources import JoinedSource, KafkaSource, Known, LeasedSource
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.ledger.seals import Seals
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.leases import Leases
from tallystick.plumbing.log import CORRECTIONS, Positions, PostgresLog, PostgresSource, Source
from tallystick.plumbing.log.heads import PostgresHeads
from tallystick.plumbing.log.kafka import KafkaOptions, KafkaWriter, Watermarks
from tallystick.plumbing.objects import open_objects
from tallystick.plumbing.outbound import OutboundPolicy
from tallystick.plumbing.postgres import open_pool
from tallystick.reconcile.doubles import Doubles
from tallystick.workers.alerts import AlertNotifier
from tallystick.workers.archiver import Archiver
from tallystick.workers.backfills import BackfillWorker
from tallystick.workers.budgets import BudgetKeeper
from tallystick.workers.calls import CallKeeper, LazyAppender
from tallystick.workers.charger import Charger
from tallystick.workers.holds import HoldKeeper
from tallystick.workers.loop import Follower, FollowerLoop
from tallystick.workers.memory import LogMemory, Memory, TopicMemory
from tallystick.workers.options import EngineOptions
from tallystick.workers.overrun import OverrunWorker
from tallystick.workers.pending import SHARDS, PendingRuns
from tallystick.workers.restore import Restorer, RestoreThenFollow
from tallystick.workers.rollups import Rollups
from tallystick.workers.sealer import Sealer
from tallystick.workers.sink import Sink
from tallystick.workers.vault import VaultFollower

_IDLE_SECONDS = {
    "sink": 0.1,
    "rollups": 0.1,
    "charger": 0.5,
    "archiver": 1.0,
    "vault": 0.5,
    "holds": 0.5,
    "budgets": 0.5,
    "sealer": 0.5,
    "overrun": 1.0,
}


class Roles:
    """Builds the followers of this process; `close` lets everything go."""

    def __init__(self, options: EngineOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._pool = open_pool(options.postgres_url, connections_max=8)
        self.positions = Positions(self._pool)
        self._catalog = Catalog(self._pool)
        self._ledger = Ledger(self._pool, clock, Uuid7Source(clock))
        self._leases: list[Leases] = []
        self._writers: list[KafkaWriter] = []
        self._sources: list[Source] = []
        self._stores: list[ClickHouse] = []
        self._indexes: list[DedupIndex] = []

    @property
    def pool(self) -> ConnectionPool:
        """The connections of this process."""
        return self._pool

    def facts(self, leases: Leases | None = None) -> FactStore:
        """A connection to the facts of its own: threads do not wait for each other.

        With `leases`, it writes only while they are its own, and only what they are for.
        """
        seconds = self._options.lease_seconds / 3 if self._options.is_shared else None
        store = ClickHouse(self._options.clickhouse_url, timeout_seconds=seconds)
        self._stores.append(store)
        return FactStore(store, leases.epochs if leases is not None else None)

    def sink(self) -> list[FollowerLoop]:
        """Facts, and their rollups."""
        leases = self._new_leases("sink") if self._options.kafka else None
        facts = self.facts(leases if self._options.is_shared else None)
        source = self._source(
            "sink",
            leases,
            lambda *range_: _landed(facts, self._remembered(), *range_),
            sets_aside=self._options.broken_by == "sink",
        )
        sink: Follower = Sink(source, self.positions, facts, self._catalog, self._pool, self._clock)
        if self._options.is_restoring:
            sink = RestoreThenFollow(self._restorer(facts), sink)
        alone = self._new_leases("rollups") if self._options.is_shared else None
        rollups = Rollups(self.positions, self.facts(alone), self._clock)
        return [self._loop(sink), self._loop(Alone(rollups, alone) if alone else rollups)]

    def archiver(self) -> list[FollowerLoop]:
        """Parquet objects of every delivery; needs no ClickHouse."""
        options, archive = self._options, self._archive()
        archiver = Archiver(
            self._source(
                "archiver",
                self._new_leases("archiver", has_fence=False) if options.kafka else None,
                lambda *range_: identities_in(archive, *range_, since=self._remembered()),
                sets_aside=False,
            ),
            self.positions,
            archive,
            self._clock,
            days=options.archive_days,
            flush_seconds=options.archive_flush_seconds,
        )
        return [self._loop(archiver)]

    def vault(self) -> list[FollowerLoop]:
        """What was spent, for quotas; needs no ClickHouse."""
        options, seen = self._options, Seen(self._pool)
        leases = self._new_leases("vault", has_fence=False) if options.kafka else None
        folder = Path(options.data) / "vault-memory"
        memory: Memory
        if options.kafka:
            memory = TopicMemory(folder, seen.known)
        else:
            memory = LogMemory([PostgresLog(self._pool)], folder)
        budgets, store = Budgets(self._pool, self._clock), VaultStore(self._pool)
        assignments = BudgetAssignments(self._pool, budgets, makes_windows=True)
        follower = VaultFollower(
            self._source("vault", leases, seen.known, sets_aside=options.broken_by == "vault"),
            self.positions,
            store,
            self._catalog,
            self._clock,
            memory=memory,
            seen=seen if options.kafka else None,
            counting=Counting(self._pool, store, assignments, self._ledger, self._clock),
        )
        return [self._loop(follower)]

    def charger(self) -> list[FollowerLoop]:
        """Charges, for a share of the runs."""
        leases = self._new_leases("charger") if self._options.is_shared else None

        def shards() -> Sequence[int]:
            return leases.share("charger/", SHARDS) if leases else range(SHARDS)

        charger = Charger(
            PendingRuns(self._pool),
            self.facts(leases),
            self._catalog,
            self._ledger,
            self._clock,
            shards,
        )
        return [self._loop(charger)]

    def keeper(self) -> list[FollowerLoop]:
        """Ends of holds, seals, backfills, calls, budgets, overruns, and the delivery of alerts."""
        lanes: tuple[Follower, ...] = (
            HoldKeeper(self._ledger, self._clock),
            Sealer(Seals(self._pool, self._clock, [SEALED])),
            self._backfills(),
            BudgetKeeper(
                self._ledger,
                Budgets(self._pool, self._clock),
                Crossings(self._pool, AlertStore(), self._clock),
                self._clock,
            ),
            self._calls(),
            self._alerts(),
            self._overrun(),
        )
        if not self._options.is_shared:
            return [self._loop(lane) for lane in lanes]
        return [self._loop(Alone(lane, self._new_leases(lane.name))) for lane in lanes]

    def _calls(self) -> CallKeeper:
        options, store = self._options, ClickHouse(self._options.clickhouse_url)
        self._stores.append(store)
        redactor = Redactor(options.redaction_key.encode(), hash_user_ids=options.hash_user_ids)
        recovery = CallRecovery(
            CallStore(self._pool),
            CallFacts(store),
            self._ledger,
            LazyAppender(self._appender, redactor, self._clock).append,
            redactor,
            self._clock,
        )
        return CallKeeper(recovery, self._clock)

    def _appender(self) -> Appender:
        """A way into the log for what this process must add itself."""
        options = self._options
        if options.kafka is None:
            index = DedupIndex(Path(options.data) / "dedup-calls")
            self._indexes.append(index)
            return JudgingAppender(PostgresLog(self._pool), index)
        writer = KafkaWriter(options.kafka)
        self._writers.append(writer)
        return KafkaAppender(writer, options.kafka.topic, seal_key(options.redaction_key))

    def _backfills(self) -> BackfillWorker:
        store = ClickHouse(self._options.clickhouse_url)
        self._stores.append(store)
        kafka = self._options.kafka
        heads = Watermarks(kafka).heads if kafka else PostgresHeads([PostgresLog(self._pool)]).heads
        pieces = Pieces(self._pool, store, self._catalog, self._clock, heads)
        return BackfillWorker(pieces, Doubles(self._pool, store, self._clock), self._clock)

    def _alerts(self) -> AlertNotifier:
        options, clock = self._options, self._clock
        outbox = Outbox(self._pool, clock, Uuid7Source(clock), public_url=options.public_url)
        policy = OutboundPolicy(options.webhook_allow_private)
        sender = Sender(policy, read_mail_server(options.smtp_url), options.smtp_from)
        sealing = Sealing(options.redaction_key.encode())
        return AlertNotifier(Delivery(outbox, sender, sealing, clock, random.random))

    def _overrun(self) -> OverrunWorker:
        store = ClickHouse(self._options.clickhouse_url)
        self._stores.append(store)
        reader = FactSeries(store, self.positions)
        ids = Uuid7Source(self._clock)
        allowed = AllowedRates(self._pool, Budgets(self._pool, self._clock), self._clock)
        return OverrunWorker(
            reader, self._pool, self._clock, ids, AlertStore(), rates=allowed.rates
        )

    def close(self) -> None:
        """Let sources, leases and connections go; the loops have stopped before."""
        for source in self._sources:
            source.close()
        for leases in self._leases:
            leases.release_all()
        for writer in self._writers:
            writer.close()
        for store in self._stores:
            store.close()
        for index in self._indexes:
            index.close()
        self._pool.close()

    def _loop(self, follower: Follower) -> FollowerLoop:
        return FollowerLoop(follower, idle_seconds=_IDLE_SECONDS.get(follower.name, 0.5))

    def _new_leases(self, lane: str, *, has_fence: bool = True) -> Leases:
        """Each lane has an owner of its own: what one lets go another must not think it has.

        What writes nothing to ClickHouse needs no fence there.
        """
        owner = f"{self._options.instance_id}/{lane}/{Uuid7Source(self._clock).next_id()}"
        seconds = self._options.lease_seconds
        facts = self.facts()

        def announce(epochs: Mapping[str, int]) -> None:
            facts.announce(epochs)
            if any(epoch > 1 for epoch in epochs.values()):
                time.sleep(seconds / 3)  # a request of the one before that had begun ends by then

        leases = Leases(
            self._pool,
            owner,
            seconds=seconds,
            announce=announce if has_fence and self._options.is_shared else None,
        )
        self._leases.append(leases)
        return leases

    def _archive(self) -> Archive:
        if not self._options.archive_url:
            raise InvalidInput(
                "TALLYSTICK_ARCHIVE_URL must be set: archivers share it", field="archive_url"
            )
        return Archive(open_objects(self._options.archive_url))

    def _restorer(self, facts: FactStore) -> Restorer:
        source = ArchiveSource(self._archive(), self.positions, "sink")
        return Restorer(source, self.positions, facts, self._catalog, self._pool, self._clock)

    def _remembered(self) -> int:
        """Since when an index would remember what was received."""
        return self._clock.now() - REMEMBERED_FOR

    def _source(
        self, follower: str, leases: Leases | None, known: Known, *, sets_aside: bool
    ) -> Source:
        options = self._options
        corrections = PostgresLog(self._pool, CORRECTIONS)
        if options.kafka is None or leases is None:
            logs = [PostgresLog(self._pool), corrections]
            return PostgresSource(logs, self.positions, follower)
        source = JoinedSource(
            {
                _is_topic: self._kafka_source(
                    options.kafka, follower, leases, known, sets_aside=sets_aside
                ),
                _is_corrections: LeasedSource(
                    PostgresSource([corrections], self.positions, follower),
                    leases,
                    f"{follower}/{CORRECTIONS}",
                ),
            }
        )
        self._sources.append(source)
        return source

    def _kafka_source(
        self,
        kafka: KafkaOptions,
        follower: str,
        leases: Leases,
        known: Known,
        *,
        sets_aside: bool,
    ) -> KafkaSource:
        options, writer = self._options, None
        if sets_aside:
            writer = KafkaWriter(kafka)
            self._writers.append(writer)
        secret = options.redaction_key
        return KafkaSource(
            kafka,
            writer,
            self.positions,
            leases,
            follower=follower,
            instance_id=f"{options.instance_id}-{follower}",
            folder=Path(options.data) / f"dedup-{follower}",
            redactor=Redactor(secret.encode(), hash_user_ids=options.hash_user_ids),
            key=seal_key(secret),
            known=known,
        )


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


class Alone:
    """A follower that runs in one process at a time: in the one that has its lease."""

    def __init__(self, follower: Follower, leases: Leases) -> None:
        self.name = follower.name
        self._follower = follower
        self._leases = leases
        self._lease = f"lane/{follower.name}"

    def recover(self) -> None:
        """Forget what is only in memory."""
        self._follower.recover()

    def step(self) -> bool:
        """Do a piece of work; False when there is none, or another process does it."""
        if self._leases.left(self._lease) <= 0:
            if not self._leases.take([self._lease]):
                return False
            self._follower.recover()
        self._leases.keep([self._lease])
        return self._follower.step()


def _is_corrections(partition: int) -> bool:
    return partition == CORRECTIONS


def _is_topic(partition: int) -> bool:
    return partition != CORRECTIONS
