"""Calls in PostgreSQL: budgets of runs, open calls, and what became of unsettled ones."""

from __future__ import annotations

from typing import Any, NamedTuple

from psycopg.rows import class_row
from psycopg_pool import ConnectionPool

from tallystick.enforcement.calls.model import RunBudget
from tallystick.errors import Conflict
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.calls", "store.sql").items()
}
BUDGETS_PER_READ = 1_000
OPERATIONS_SEEN = 20_000
"""Newest operations of an account that the ratio of holds to costs looks at."""


class OpenCall(NamedTuple):
    """An open hold; `details` is empty when it is not a call's."""

    hold_id: str
    account_id: str
    tenant_id: str
    run_id: str
    status: str
    units: int
    limit_ids: list[str]
    limit_units: list[int]
    due_at: int
    details: str


class ResolvedCall(NamedTuple):
    """A call whose hold was settled without it."""

    hold_id: str
    account_id: str
    tenant_id: str
    run_id: str
    unknown_policy: str
    details: str


class KnownBudget(NamedTuple):
    """A run's budget as calls need it."""

    tenant_id: str
    run_id: str
    limit_id: str
    asset: str
    changed_at: int


class HoldRatio(NamedTuple):
    """What the calls of a model held and cost, CREDIT/6."""

    provider: str
    model: str
    calls: int
    held_units: int
    captured_units: int
    above_hold: int
    """Calls that cost more than they held."""
    short: int
    """Of those, calls that could not be paid in full."""


class CallStore:
    """Reads and writes what calls keep."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def put_run_budget(self, budget: RunBudget, now: int) -> None:
        """Make a run's budget or change its amount; Conflict when it has another asset."""
        arguments = {
            "tenant_id": budget.tenant_id,
            "run_id": budget.run_id,
            "limit_id": budget.limit_id,
            "asset": budget.asset,
            "amount": budget.amount_units,
            "now": now,
        }
        with transaction(self._pool) as connection:
            if connection.execute(_SQL["put_run_budget"], arguments).fetchone() is None:
                raise Conflict("the run has a budget in another asset", code="asset_mismatch")

    def load_run_budget(self, tenant_id: str, run_id: str) -> RunBudget | None:
        """A run's budget and what is left of it."""
        arguments = {"tenant_id": tenant_id, "run_id": run_id}
        with transaction(self._pool) as connection:
            cursor = connection.cursor(row_factory=class_row(RunBudget))
            return cursor.execute(_SQL["load_run_budget"], arguments).fetchone()

    def load_run_budgets(
        self, since: int, after_tenant: str = "", after_run: str = ""
    ) -> list[KnownBudget]:
        """A page of budgets that were made or changed since a time (micros), after a run."""
        rows = self._rows(
            "load_run_budgets",
            since=since,
            after_tenant=after_tenant,
            after_run=after_run,
            rows_max=BUDGETS_PER_READ,
        )
        return [KnownBudget(*row) for row in rows]

    def load_newest_run_budgets(self, rows_max: int) -> list[KnownBudget]:
        """Budgets that were made or changed last, the newest first."""
        rows = self._rows("load_newest_run_budgets", rows_max=rows_max)
        return [KnownBudget(*row) for row in rows]

    def load_open_calls(self, *, after: str, before: str, holds_max: int) -> list[OpenCall]:
        """A page of open holds between two ids."""
        rows = self._rows("load_open_calls", after=after, before=before, holds_max=holds_max)
        return [OpenCall(*row) for row in rows]

    def list_open_calls(self, tenant_id: str, status: str, holds_max: int) -> list[OpenCall]:
        """Open calls of a tenant, or all."""
        rows = self._rows(
            "list_open_calls", tenant_id=tenant_id, status=status, holds_max=holds_max
        )
        return [OpenCall(*row) for row in rows]

    def load_details(self, hold_ids: list[str]) -> list[tuple[str, str]]:
        """What is kept with those of the holds that are calls: (hold id, details)."""
        return self._rows("load_details", hold_ids=hold_ids)

    def load_limit_assets(self, limit_ids: list[str]) -> dict[str, str]:
        """What each limit counts."""
        return dict(self._rows("load_limit_assets", limit_ids=limit_ids)) if limit_ids else {}

    def load_resolved_calls(
        self, *, since: int, due_before: int, calls_max: int
    ) -> list[ResolvedCall]:
        """Calls that nobody settled or judged."""
        rows = self._rows(
            "load_resolved_calls", since=since, due_before=due_before, calls_max=calls_max
        )
        return [ResolvedCall(*row) for row in rows]

    def insert_judged(self, call: ResolvedCall, verdict: str, event_id: str, now: int) -> None:
        """Remember what was said of a call that nobody settled."""
        arguments = {
            "hold_id": call.hold_id,
            "tenant_id": call.tenant_id,
            "run_id": call.run_id,
            "verdict": verdict,
            "event_id": event_id,
            "now": now,
        }
        with transaction(self._pool) as connection:
            connection.execute(_SQL["insert_judged"], arguments)

    def load_hold_ratio(self, tenant_id: str) -> list[HoldRatio]:
        """What calls held and cost by model, over each account's newest operations."""
        rows = self._rows("load_hold_ratio", tenant_id=tenant_id, operations_max=OPERATIONS_SEEN)
        return [HoldRatio(*row) for row in rows]

    def _rows(self, name: str, **arguments: Any) -> list[Any]:
        with transaction(self._pool) as connection:
            return connection.execute(_SQL[name], arguments).fetchall()
