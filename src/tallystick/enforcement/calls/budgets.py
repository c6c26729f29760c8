"""Budgets of runs: a limit that a root run and every run below it draw from.

Which runs have one is kept in memory, so that the other calls ask nobody; what other
processes make is read once a second. A process begins with the newest budgets, as many as fit,
however many there ever were. Of a tenant whose budgets do not all fit, a run that is not found
is asked for: no budget is ever taken for absent. The counting itself is the ledger's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict

from tallystick.clock import SECOND, Clock
from tallystick.enforcement.calls.model import RunBudget
from tallystick.enforcement.calls.store import BUDGETS_PER_READ, CallStore, KnownBudget
from tallystick.errors import InvalidInput, NotFound
from tallystick.ledger import Ledger
from tallystick.ledger.intake import check_id
from tallystick.plumbing.postgres import for_every_tenant
from tallystick.units import CREDIT, USD

_OVERLAP_MICROS = 5 * SECOND
"""What is read again: clocks of processes differ, and transactions end out of order."""


class RunBudgets:
    """Makes and finds budgets of runs."""

    def __init__(
        self, store: CallStore, ledger: Ledger, clock: Clock, known_max: int = 100_000
    ) -> None:
        self._store = store
        self._known_max = known_max
        self._ledger = ledger
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], KnownBudget | None] = OrderedDict()
        """None: the run was asked for and has none."""
        self._incomplete: set[str] = set()
        """Tenants of which something was left out."""
        self._has_older = False
        """Whether there were more budgets at the beginning than fit, of whatever tenants."""
        self._seen_until = 0

    async def put(self, tenant_id: str, run_id: str, *, asset: str, amount_units: int) -> RunBudget:
        """Give a root run a budget, or change its amount."""
        if asset not in (str(CREDIT), str(USD)):
            raise InvalidInput("asset is CREDIT or USD", field="asset")
        check_id(tenant_id, "tenant_id")
        check_id(run_id, "run_id")
        limit_id = limit_id_of(tenant_id, run_id)
        budget = RunBudget(
            tenant_id=tenant_id,
            run_id=run_id,
            limit_id=limit_id,
            asset=asset,
            amount_units=amount_units,
        )

        def write() -> None:
            # the limit first: a budget that is known must have its window
            self._ledger.put_limit(limit_id, asset=asset, capacity=amount_units)
            self._store.put_run_budget(budget, self._clock.now())

        await asyncio.to_thread(write)
        self._learn([KnownBudget(tenant_id, run_id, limit_id, asset, 0)])
        return await self.load(tenant_id, run_id)

    async def load(self, tenant_id: str, run_id: str) -> RunBudget:
        """A run's budget and what is left; NotFound when it has none."""
        found = await asyncio.to_thread(self._store.load_run_budget, tenant_id, run_id)
        if found is None:
            raise NotFound("the run has no budget", code="unknown_run_budget")
        return found

    async def find(self, tenant_id: str, root_run_id: str) -> KnownBudget | None:
        """The budget that a call of a root run draws from."""
        run = (tenant_id, root_run_id)
        found = self._known.get(run)
        may_have = self._has_older or tenant_id in self._incomplete
        if found is None and may_have and run not in self._known:
            found = await asyncio.to_thread(self._ask, tenant_id, root_run_id)
        return found

    def _ask(self, tenant_id: str, run_id: str) -> KnownBudget | None:
        with for_every_tenant():
            budget = self._store.load_run_budget(tenant_id, run_id)
        if budget is None:
            known = self._known.setdefault((tenant_id, run_id), None)  # one made meanwhile stays
            self._shorten()
            return known
        found = KnownBudget(tenant_id, run_id, budget.limit_id, budget.asset, 0)
        self._learn([found])
        return found

    def refresh(self) -> None:
        """Learn what other processes made since the last time."""
        if not self._seen_until:
            self._begin()
        since, after = max(self._seen_until - _OVERLAP_MICROS, 0), ("", "")
        while True:
            with for_every_tenant():
                found = self._store.load_run_budgets(since, *after)
            self._learn(found)
            if found:
                since, after = found[-1].changed_at, (found[-1].tenant_id, found[-1].run_id)
                self._seen_until = max(self._seen_until, since)
            if len(found) < BUDGETS_PER_READ:
                return

    def _begin(self) -> None:
        """Learn the newest budgets."""
        with for_every_tenant():
            newest = self._store.load_newest_run_budgets(self._known_max)
        self._has_older = len(newest) == self._known_max
        self._learn(newest[::-1])
        self._seen_until = newest[0].changed_at if newest else 0

    def _learn(self, budgets: list[KnownBudget]) -> None:
        for budget in budgets:
            self._known[budget.tenant_id, budget.run_id] = budget
        self._shorten()

    def _shorten(self) -> None:
        """Leave out what was learned first; its tenant is marked before, never after."""
        while len(self._known) > self._known_max:
            try:
                run = next(iter(self._known))
            except (StopIteration, RuntimeError):  # another thread does the same
                continue
            self._incomplete.add(run[0])
            self._known.pop(run, None)


def limit_id_of(tenant_id: str, run_id: str) -> str:
    """The limit window of a run's budget, of no other tenant's; long ids are cut to a digest.

    >>> limit_id_of("acme", "r1")
    'run:acme/r1'
    """
    name = f"run:{tenant_id}/{run_id}"
    if len(name) <= 200 and "/" not in tenant_id:
        return name
    said = f"{len(tenant_id)} {tenant_id} {run_id}"
    return f"run:{hashlib.sha256(said.encode()).hexdigest()}"
