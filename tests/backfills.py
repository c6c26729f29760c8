"""Backfills on a test world: asked for, worked to their end, and compared."""

from __future__ import annotations

from itertools import count
from typing import Any

from tallystick.analytics.stats import StatsQuery
from tallystick.backfill import BackfillRequest, Backfills, Pieces
from tallystick.backfill.model import EVENTS_PER_PIECE_MAX
from tallystick.catalog.service import COST_CARD_ID, CREDIT_CARD_ID
from tallystick.clock import DAY, HOUR, MINUTE
from tallystick.ids import Uuid7Source
from tallystick.reconcile.doubles import Doubles
from tallystick.workers.backfills import BackfillWorker
from tests.world import World

_keys = count()
INTERVALS = ("minute", "hour", "day")


class BackfillWorld:
    """The backfills of one world; `run` works until nothing is left to do."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.service = Backfills(world.pool, world.catalog, world.clock, Uuid7Source(world.clock))
        self.events_per_piece = EVENTS_PER_PIECE_MAX
        self.worker = self.new_worker()

    def new_worker(self) -> BackfillWorker:
        """A worker that knows nothing, as after a crash."""
        world = self.world
        store = world.facts._store
        heads = lambda: {0: world.log.head()}  # noqa: E731
        stores = (world.pool, store, world.catalog)
        pieces = Pieces(*stores, world.clock, heads, self.events_per_piece)
        return BackfillWorker(pieces, Doubles(world.pool, store, world.clock), world.clock)

    def ask(self, tenant: str, **more: Any) -> str:
        """Plan one over all time for a tenant."""
        now = self.world.clock.now()
        asked = {
            "from_at": now - 400 * DAY,
            "to_at": now + HOUR,
            "reason": "a test",
            "idempotency_key": f"{tenant}-{next(_keys)}",
            "tenant_ids": (tenant,),
            "events_per_second_max": 50_000,
        }
        request = BackfillRequest(**{**asked, **more})
        return str(self.service.create(request, "test")["backfill_id"])

    def revert(self, backfill_id: str) -> str:
        key = f"revert-{next(_keys)}"
        return str(self.service.revert(backfill_id, "undo", key, "test")["backfill_id"])

    def work(self) -> None:
        """Until no backfill is open and everything has converged."""
        while True:
            self.worker._rest = 0
            progressed = self.worker.step()
            self.world.settle()
            if not progressed and self.worker._pieces.next_open() is None:
                return

    def run(self, tenant: str, **more: Any) -> dict[str, Any]:
        """Plan one, work it to its end, and return it."""
        backfill_id = self.ask(tenant, **more)
        self.work()
        return self.service.get(backfill_id)

    def everything(self, tenant: str) -> dict[str, Any]:
        """What every place says of a tenant; raises when places disagree."""
        assert self.world.verifier.violations() == []
        total = self.world.totals(tenant)
        now = self.world.clock.now() // MINUTE * MINUTE
        found: dict[str, Any] = {"total": total}
        for group_by in ((), ("model",), ("user",), ("feature",)):
            for interval in INTERVALS:
                rows = self.world.stats.query(
                    StatsQuery(
                        now - 5 * DAY, now + 2 * HOUR, interval, group_by, {"tenant": tenant}
                    )
                )
                found["-".join((interval, *group_by))] = rows
        targets = self.world.ledger.load_run_targets()
        found["ledger"] = {key: units for key, units in targets.items() if key[0] == tenant}
        return found

    def set_prices(self, tenant: str, cost: str, markup: str) -> None:
        """Record new versions of the tenant's own cards, in force for all time."""
        world = self.world
        for kind, card, content in (
            ("cost", COST_CARD_ID, cost_card(cost)),
            ("credit", CREDIT_CARD_ID, {"token_markup": markup}),
        ):
            world.catalog.add_version(
                f"{card}-{tenant}",
                kind=kind,
                tenant_id=tenant,
                content=content,
                effective_at=0,
                source="test",
                clock=world.clock,
            )


def cost_card(per_million: str) -> dict[str, Any]:
    """A card with one model of one price."""
    prices = [{"rates": {"input": per_million, "output": per_million}}]
    model = {"id": "m", "match": {"equals": "m"}, "prices": prices}
    return {"providers": [{"id": "p", "models": [model]}]}
