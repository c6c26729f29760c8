"""The product's parts on real stores, without HTTP, moved step by step."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tallystick.analytics.runs import Runs
from tallystick.analytics.stats import Stats, StatsQuery
from tallystick.analytics.store import FactStore
from tallystick.catalog import Catalog
from tallystick.clock import DAY, HOUR, MINUTE, Clock, format_time
from tallystick.events.appending import JudgingAppender
from tallystick.events.dedup import DedupIndex
from tallystick.events.door import Door, Receipt
from tallystick.events.redaction import Redactor
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger
from tallystick.ledger.seals import Seals
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.log import CORRECTIONS, Positions, PostgresLog, PostgresSource
from tallystick.plumbing.postgres import open_pool
from tallystick.reconcile.verify import Verifier
from tallystick.shapes import prepare_shapes
from tallystick.workers import charger as charger_module
from tallystick.workers import rollups as rollups_module
from tallystick.workers.charger import Charger
from tallystick.workers.pending import PendingRuns
from tallystick.workers.rollups import Rollups
from tallystick.workers.sink import Sink


class World:
    """Everything wired; `settle` runs the followers until nothing is left to do."""

    def __init__(
        self, postgres_url: str, clickhouse: ClickHouse, folder: Path, clock: Clock
    ) -> None:
        prepare_shapes()
        rollups_module.QUIET_SECONDS = 0.0
        self.clock = clock
        self.folder = folder
        self.pool = open_pool(postgres_url, connections_max=10)
        self.log = PostgresLog(self.pool)
        self.corrections = PostgresLog(self.pool, CORRECTIONS)
        self.positions = Positions(self.pool)
        self.facts = FactStore(clickhouse)
        self.catalog = Catalog(self.pool)
        self.catalog.seed_if_empty(clock.now())
        self.ledger = Ledger(self.pool, clock, Uuid7Source(clock))
        self.stats = Stats(clickhouse)
        self.runs = Runs(clickhouse)
        self.index = DedupIndex(folder / "index")
        self.door = Door(JudgingAppender(self.log, self.index), Redactor(b"k" * 32), clock)
        self.door.start()
        self.verifier = Verifier(self.pool, clickhouse, self.ledger, Seals(self.pool, clock))
        self.restart_followers()

    def restart_followers(self) -> None:
        """New followers that know nothing, as after a crash."""
        source = PostgresSource([self.log, self.corrections], self.positions, "sink")
        self.sink = Sink(source, self.positions, self.facts, self.catalog, self.pool, self.clock)
        self.rollups = Rollups(self.positions, self.facts, self.clock)
        self.charger = Charger(
            PendingRuns(self.pool), self.facts, self.catalog, self.ledger, self.clock
        )

    def send(self, messages: list[dict[str, Any]]) -> Receipt:
        """Send one request."""
        return self.send_body(json.dumps(messages).encode())

    def send_body(
        self, body: bytes, content_type: str = "application/json", content_encoding: str = ""
    ) -> Receipt:
        """Send one raw body."""

        async def accept() -> Receipt:
            return await self.door.accept(
                body, content_type=content_type, content_encoding=content_encoding, headers={}
            )

        return asyncio.run(accept())

    def settle(self) -> None:
        """Sink and charge everything, quiet runs too."""
        quiet, charger_module.QUIET_SECONDS = charger_module.QUIET_SECONDS, -1
        try:
            while self.sink.step():
                pass
            while self.rollups.step():
                pass
            while self.charger.step():
                pass
        finally:
            charger_module.QUIET_SECONDS = quiet

    def totals(self, tenant: str, **more: Any) -> dict[str, Any]:
        """The one row of /v1/stats for a tenant over all time."""
        now = self.clock.now() // MINUTE * MINUTE
        query = StatsQuery(now - 400 * DAY, now + 2 * HOUR, filters={"tenant": tenant}, **more)
        return self.stats.query(query)[0]

    def at(self, offset_seconds: float = 0) -> str:
        """A time near now, as text."""
        return format_time(self.clock.now() + int(offset_seconds * 1_000_000))

    def close(self) -> None:
        """Stop."""
        self.door.close()
        self.index.close()
        self.pool.close()
