"""The composition root: which parts run, and what each is given.

`open_platform` takes the data folder, starts the embedded stores that no URL replaces,
migrates both schemas and starts the engine (followers and the owner of chDB) as a child.
Everything that it started stops with it, also when this process is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any, NamedTuple

import msgspec
from psycopg_pool import ConnectionPool

from tallystick.access import Access, AccessSecret
from tallystick.analytics.runs import Runs
from tallystick.analytics.stats import Stats
from tallystick.analytics.store import FactStore
from tallystick.api.feed import BalanceFeed
from tallystick.api.gate import Gate
from tallystick.api.metrics import Metrics
from tallystick.api.services import Services
from tallystick.audit import SEALED, AuditTrail
from tallystick.backfill import Backfills
from tallystick.bootstrap.engine import Engine
from tallystick.bootstrap.options import engine_options, kafka_of, require_urls
from tallystick.bootstrap.secrets import load_access_key, load_admin_key, owner_only_secret
from tallystick.broken import BrokenMessages
from tallystick.catalog import Catalog
from tallystick.clock import Clock, SystemClock
from tallystick.enforcement.alerts import AlertStore
from tallystick.enforcement.alerts.channels import Channels, channel_sealing
from tallystick.enforcement.alerts.service import Alerts
from tallystick.enforcement.authorization import Authorizer
from tallystick.enforcement.budgets import Budgets
from tallystick.enforcement.budgets.enforcing import Enforcing
from tallystick.enforcement.calls import Calls, CallSettings
from tallystick.enforcement.overrun import OverrunResponse
from tallystick.enforcement.quotas import BudgetAssignments
from tallystick.enforcement.rates import RateLimiter
from tallystick.enforcement.rates.lanes import Lender
from tallystick.enforcement.rates.service import RateLimits
from tallystick.enforcement.rates.store import PostgresLender, RateLimitStore
from tallystick.enforcement.vault import Quotas, VaultStore
from tallystick.errors import StoreUnavailable
from tallystick.events.appending import Appender, JudgingAppender, KafkaAppender, seal_key
from tallystick.events.dedup import DedupIndex
from tallystick.events.door import Door
from tallystick.events.redaction import Redactor
from tallystick.gateway.keys import ProviderKeys
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.ledger.committer import LANES, Committer
from tallystick.ledger.drift import Drift
from tallystick.ledger.seals import Seals
from tallystick.plumbing.clickhouse import ClickHouse, migrate_clickhouse
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tallystick.plumbing.log import (
    ClosedBefore,
    KnownHorizons,
    Positions,
    PostgresLog,
)
from tallystick.plumbing.log.heads import Heads, open_heads
from tallystick.plumbing.log.kafka import KafkaOptions, KafkaWriter, ensure_topics
from tallystick.plumbing.log.postgres import APPEND_CONNECTIONS
from tallystick.plumbing.outbound import OutboundPolicy
from tallystick.plumbing.postgres import (
    BY_INDEX,
    make_async_pool,
    migrate_postgres,
    open_pool,
    require_quiet,
)
from tallystick.reconcile.doubles import Doubles
from tallystick.reconcile.freshness import Freshness
from tallystick.reconcile.ledger import LedgerReconciler
from tallystick.reconcile.quotas import QuotaReconciler
from tallystick.reconcile.verify import Verifier
from tallystick.settings import Settings
from tallystick.shapes import prepare_shapes
from tallystick.workers.options import EngineOptions

_READINESS_SECONDS = 3.0
"""How long ClickHouse may take to answer at all before it counts as away."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Platform(msgspec.Struct):
    """The running product, without its HTTP surface."""

    settings: Settings
    folder: DataFolder
    admin_key: str
    clock: Clock
    pool: ConnectionPool
    clickhouse: ClickHouse
    readiness: ClickHouse
    """A connection that gives up after seconds and waits behind nobody's statistics."""
    engine: Engine | None
    postgres: EmbeddedPostgres | None
    heads: Heads
    door: Door
    ledger: Ledger
    committer: Committer
    audit: AuditTrail
    catalog: Catalog
    stats: Stats
    runs: Runs
    freshness: Freshness
    seals: Seals
    verifier: Verifier
    reconciler: LedgerReconciler
    broken: BrokenMessages
    backfills: Backfills
    doubles: Doubles
    access: Access
    overruns: OverrunResponse

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Whether stores answer and followers progress, and what each said."""
        report: dict[str, object] = {}
        try:
            self.heads.heads()
            report["postgres"] = "ok"
        except StoreUnavailable as error:
            return False, {"postgres": error.message}
        try:
            self.readiness.query_rows("SELECT 1 AS one")
            report["clickhouse"] = "ok"
        except StoreUnavailable as error:
            return False, {**report, "clickhouse": error.message}
        stalled = self.freshness.stalled()
        report["followers"] = f"stalled: {', '.join(stalled)}" if stalled else "ok"
        if self.engine is None:  # a stuck worker must not take every door out of service
            return True, report
        is_progressing = not set(stalled) - {
            "archiver",
            "vault",
        }  # said above; nothing else waits for it
        return is_progressing and self.engine.is_running(), report


@contextmanager
def open_platform(
    settings: Settings,
    *,
    has_wipe: bool = False,
    is_restoring: bool = False,
    has_engine: bool = True,
) -> Iterator[Platform]:
    """Start everything; stop it in reverse order at the end.

    `has_wipe` deletes derived data first, so that it is rebuilt from the log; `is_restoring`
    takes what the archive holds from there. Without an engine this is the API alone, and all
    stores are given by URL. Raises DataFolderInUse, StoreUnavailable, InvalidInput.
    """
    prepare_shapes()
    clock = SystemClock()
    if not has_engine:
        require_urls(settings)
    with ExitStack() as stack:
        folder = DataFolder(settings.data_folder)
        stack.callback(folder.close)
        admin_key = load_admin_key(settings, folder.path)
        postgres, postgres_url = _start_postgres(settings, folder, stack)
        pool, catalog = _open_catalog(postgres_url, clock, stack)
        secret = settings.redaction_key or owner_only_secret(folder.path / "redaction.key")
        heads = open_heads(pool, kafka := kafka_of(settings))
        # before the engine, which may append: the door sees how far its index is beyond the log
        closed_before = KnownHorizons(pool, clock).closed_before
        door = _start_door(
            settings, kafka, folder, secret, postgres_url, clock, closed_before, stack
        )
        engine, clickhouse_url = None, settings.clickhouse_url
        if has_engine:
            options = engine_options(settings, folder, postgres_url, secret)
            options = msgspec.structs.replace(options, has_wipe=has_wipe, is_restoring=is_restoring)
            engine, clickhouse_url = _start_engine(
                options, folder, stack, silent_looks_max=settings.engine_silent_seconds
            )
        clickhouse = stack.enter_context(closing(ClickHouse(clickhouse_url)))
        stores = _Stores(pool, postgres_url, clickhouse, heads, door, catalog, clock)
        yield Platform(
            settings=settings,
            folder=folder,
            admin_key=admin_key,
            engine=engine,
            readiness=stack.enter_context(
                closing(ClickHouse(clickhouse_url, timeout_seconds=_READINESS_SECONDS))
            ),
            postgres=postgres,
            access=_open_access(settings, folder, admin_key, postgres_url, clock, stack),
            overruns=_start_overruns(pool, clickhouse, clock, stack),
            **_slices(stores, stack),
        )


class _Stores(NamedTuple):
    """What the slices work on; these are parts of the platform too."""

    pool: ConnectionPool
    postgres_url: str
    clickhouse: ClickHouse
    heads: Heads
    door: Door
    catalog: Catalog
    clock: Clock


def _slices(stores: _Stores, stack: ExitStack) -> dict[str, Any]:
    """The parts of the platform that are built on its stores, by name."""
    pool, postgres_url, clickhouse, heads, door, catalog, clock = stores
    ids = Uuid7Source(clock)
    ledger = Ledger(pool, clock, ids)
    seals = Seals(pool, clock, [SEALED])
    verifier = Verifier(pool, clickhouse, ledger, seals)
    return {
        "clock": clock,
        "pool": pool,
        "clickhouse": clickhouse,
        "heads": heads,
        "door": door,
        "ledger": ledger,
        "committer": _make_committer(postgres_url, clock, stack),
        "audit": AuditTrail(pool, make_async_pool(postgres_url, connections=1)),
        "catalog": catalog,
        "stats": Stats(clickhouse),
        "runs": Runs(clickhouse),
        "freshness": Freshness(pool, heads, FactStore(clickhouse), clock),
        "seals": seals,
        "verifier": verifier,
        "reconciler": LedgerReconciler(pool, Drift(pool, clock, ids), verifier),
        "broken": BrokenMessages(pool, clickhouse, door, clock),
        "backfills": Backfills(pool, catalog, clock, ids),
        "doubles": Doubles(pool, clickhouse, clock),
    }


def _open_access(
    settings: Settings,
    folder: DataFolder,
    admin_key: str,
    postgres_url: str,
    clock: Clock,
    stack: ExitStack,
) -> Access:
    """It has connections of its own, so that a busy API still sees a revocation."""
    pool = open_pool(postgres_url, connections_max=4)
    stack.callback(pool.close)
    access = Access(
        pool,
        AccessSecret(load_access_key(settings, folder.path)),
        clock,
        Uuid7Source(clock),
        admin_key=admin_key,
        issuer=settings.public_url or f"http://{settings.host}:{settings.port}",
        outbound=OutboundPolicy(settings.allow_private_addresses),
    )
    stack.callback(access.close)
    access.start()
    return access


def _start_postgres(
    settings: Settings, folder: DataFolder, stack: ExitStack
) -> tuple[EmbeddedPostgres | None, str]:
    if settings.postgres_url:
        return None, settings.postgres_url
    postgres = EmbeddedPostgres(folder)
    stack.callback(postgres.stop)
    postgres.start()
    return postgres, postgres.url


def _open_catalog(
    postgres_url: str, clock: Clock, stack: ExitStack
) -> tuple[ConnectionPool, Catalog]:
    """Connections to a PostgreSQL that is up to date, and its catalog, never empty."""
    migrate_postgres(postgres_url)
    pool = open_pool(postgres_url, connections_max=12)
    stack.callback(pool.close)
    catalog = Catalog(pool)
    catalog.seed_if_empty(clock.now())
    return pool, catalog


def _start_engine(
    options: EngineOptions, folder: DataFolder, stack: ExitStack, *, silent_looks_max: int
) -> tuple[Engine, str]:
    """The engine, and where ClickHouse answers: the engine's own endpoint when it is embedded."""
    engine = Engine(
        options,
        folder.lock_fd,
        folder.scratch_folder(),
        folder.path / "engine.log",
        silent_looks_max=silent_looks_max,
    )
    stack.callback(engine.stop)
    engine.start()
    if not options.clickhouse_url.startswith("chdb://"):
        return engine, options.clickhouse_url
    endpoint = f"127.0.0.1:{engine.endpoint_port}"
    return engine, f"http://tallystick:{options.endpoint_key}@{endpoint}/"


def migrate(settings: Settings) -> None:
    """Bring every store of the distributed form up to date; may be run again."""
    require_urls(settings)
    migrate_postgres(settings.postgres_url)
    pool = open_pool(settings.postgres_url, connections_max=2)
    try:
        Catalog(pool).seed_if_empty(SystemClock().now())
    finally:
        pool.close()
    store = ClickHouse(settings.clickhouse_url)
    try:
        migrate_clickhouse(store, cluster=settings.clickhouse_cluster)
    finally:
        store.close()
    kafka = kafka_of(settings)
    if kafka is not None:
        ensure_topics(
            kafka, partitions=settings.kafka_partitions, replication=settings.kafka_replication
        )


def _channels(parts: Platform) -> Channels:
    settings, clock = parts.settings, parts.clock
    secret = settings.redaction_key or owner_only_secret(parts.folder.path / "redaction.key")
    policy = OutboundPolicy(settings.allow_private_addresses)
    return Channels(parts.pool, clock, Uuid7Source(clock), channel_sealing(secret), policy)


def _provider_keys(parts: Platform) -> ProviderKeys:
    secret = load_access_key(parts.settings, parts.folder.path)
    return ProviderKeys(parts.pool, secret, parts.clock)


def _rates(parts: Platform) -> RateLimits:
    """Exact in this process; without an engine others share the limits."""
    lender: Lender | None = PostgresLender(parts.pool) if parts.engine is None else None
    if parts.settings.redis_url:
        from tallystick.enforcement.rates.redis_lender import RedisLender  # an extra

        lender = RedisLender(parts.settings.redis_url)
    return RateLimits(RateLimitStore(parts.pool, parts.clock), RateLimiter(parts.clock, lender))


def _start_door(
    settings: Settings,
    kafka: KafkaOptions | None,
    folder: DataFolder,
    secret: str,
    postgres_url: str,
    clock: Clock,
    closed_before: ClosedBefore,
    stack: ExitStack,
) -> Door:
    appender: Appender
    if kafka is None:
        index = DedupIndex(folder.path / "dedup")
        stack.callback(index.close)
        own = open_pool(
            postgres_url,
            connections_max=APPEND_CONNECTIONS,
            settings=BY_INDEX,
            check=require_quiet,
        )
        stack.callback(own.close)
        appender = JudgingAppender(PostgresLog(own), index)
    else:
        writer = KafkaWriter(kafka)
        stack.callback(writer.close)
        appender = KafkaAppender(writer, kafka.topic, seal_key(secret))
    redactor = Redactor(secret.encode(), hash_user_ids=settings.hash_user_ids)
    door = Door(appender, redactor, clock, closed_before)
    stack.callback(door.close)
    door.start()
    return door


def _start_overruns(
    pool: ConnectionPool, clickhouse: ClickHouse, clock: Clock, stack: ExitStack
) -> OverrunResponse:
    """What is in force is read before the first request, and kept up with."""
    overruns = OverrunResponse(pool, clickhouse, clock, Uuid7Source(clock), AlertStore())
    overruns.guard.start()
    stack.callback(overruns.guard.close)
    return overruns


def _make_committer(postgres_url: str, clock: Clock, stack: ExitStack) -> Committer:
    """It begins with the event loop of the HTTP surface."""
    pool = open_pool(postgres_url, connections_max=1, settings=BY_INDEX)
    stack.callback(pool.close)
    ledger = Ledger(pool, clock, Uuid7Source(clock))
    lanes = make_async_pool(postgres_url, connections=LANES + 1, settings=BY_INDEX)
    return Committer(ledger, lanes)


def services_of(parts: Platform) -> Services:
    """What the HTTP surface is given."""
    budgets = Budgets(parts.pool, parts.clock)
    enforcing = Enforcing(budgets, parts.clock)
    authorizer = Authorizer(parts.committer, enforcing, [guard := parts.overruns.guard], guard)
    rates = _rates(parts)
    return Services(
        access=parts.access,
        gate=Gate(parts.access, rates.limiter),
        authorizer=authorizer,
        audit=parts.audit,
        budgets=budgets,
        enforcing=enforcing,
        calls=_make_calls(parts, authorizer),
        clock=parts.clock,
        door=parts.door,
        ledger=parts.ledger,
        committer=parts.committer,
        feed=BalanceFeed(parts.ledger),
        catalog=parts.catalog,
        stats=parts.stats,
        runs=parts.runs,
        freshness=parts.freshness,
        seals=parts.seals,
        verifier=parts.verifier,
        reconciler=parts.reconciler,
        broken=parts.broken,
        backfills=parts.backfills,
        doubles=parts.doubles,
        alerts=Alerts(parts.pool, parts.clock),
        channels=_channels(parts),
        provider_keys=_provider_keys(parts),
        rates=rates,
        overruns=parts.overruns,
        quotas=Quotas(VaultStore(parts.pool), BudgetAssignments(parts.pool, budgets)),
        quota_reconciler=QuotaReconciler(
            VaultStore(parts.pool), parts.clickhouse, Positions(parts.pool)
        ),
        metrics=Metrics(),
        ready=parts.ready,
    )


def _make_calls(parts: Platform, authorizer: Authorizer) -> Calls:
    settings = parts.settings
    return Calls(
        authorizer,
        parts.ledger,
        parts.door,
        parts.catalog,
        parts.clock,
        parts.pool,
        parts.clickhouse,
        CallSettings(
            allows_unpriced=settings.allow_unpriced_models,
            output_tokens_at_first=settings.output_tokens_at_first,
            output_tokens_ceiling=settings.output_tokens_ceiling,
        ),
    )
