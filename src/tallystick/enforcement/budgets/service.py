"""Budgets: set, change, show them, and make their windows in the ledger.

A window is made before the first work in it, by whoever comes first, while the budget is
locked against edits; an edit changes the capacity of every window under way in its own
transaction. So no window ever keeps the capacity of an older revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from tallystick.clock import Clock
from tallystick.enforcement.budgets import store
from tallystick.enforcement.budgets.matching import ActiveBudgets, WindowPart, part_of
from tallystick.enforcement.budgets.model import Budget, BudgetTerms, WindowView
from tallystick.enforcement.budgets.rules import (
    capacity_of,
    check_same_shape,
    check_terms,
    limit_id_of,
    plan_carry,
    window_before,
)
from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.plumbing.postgres import for_every_tenant, transaction

Connection = psycopg.Connection[Any]
STATUSES = ("active", "paused", "deleted")


class Budgets:
    """All budgets, in PostgreSQL."""

    def __init__(self, pool: ConnectionPool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    # Setting

    def put(
        self,
        tenant_id: str,
        budget_id: str,
        terms: BudgetTerms,
        *,
        changed_by: str,
        status: str = "active",
        revision: int | None = None,
    ) -> Budget:
        """Make a budget or change it; the capacity of windows under way changes with it.

        `revision` is the one that the caller saw (0: none yet); another one is a Conflict.
        Scope, asset and window of a budget never change.
        """
        check_terms(terms)
        store.check_budget_id(budget_id)
        if not tenant_id:
            raise InvalidInput("tenant_id says whose budget it is", field="tenant_id")
        if status not in STATUSES:
            raise InvalidInput("status must be active, paused or deleted", field="status")
        with transaction(self._pool) as connection:
            edit = store.next_edit(connection)
            before = store.lock_budget(connection, tenant_id, budget_id)
            _check_revision(before, revision)
            if before is not None:
                check_same_shape(before.terms, terms)
                if (before.terms, before.status) == (terms, status):
                    return before
            after = store.write_budget(
                connection,
                Budget(
                    tenant_id,
                    budget_id,
                    before.revision + 1 if before else 1,
                    status,
                    terms,
                    created_at=0,
                    changed_at=self._clock.now(),
                    changed_by=changed_by,
                ),
                edit,
            )
            self._retune(connection, after)
            return after

    def delete(
        self, tenant_id: str, budget_id: str, *, changed_by: str, revision: int | None = None
    ) -> Budget:
        """End a budget; its history stays, and putting it again revives it."""
        found = self.load(tenant_id, budget_id)
        return self.put(
            tenant_id,
            budget_id,
            found.terms,
            changed_by=changed_by,
            status="deleted",
            revision=revision,
        )

    def refresh_carried(self) -> int:
        """Bring what windows carry over up to the windows before them; how many changed.

        What is held of a window counts as used until it is settled: what is carried over can
        only grow, by what holds give back.
        """
        with transaction(self._pool) as connection:
            carrying = store.load_carrying(connection)
        changed = 0
        for budget in carrying:
            with transaction(self._pool) as connection:
                (found,) = store.share_budgets(connection, [(budget.tenant_id, budget.budget_id)])
                changed += self._retune(connection, found)
        return changed

    def _retune(self, connection: Connection, budget: Budget) -> int:
        """Set the capacity of windows under way to what the terms say."""
        windows = store.lock_windows(
            connection, budget.tenant_id, budget.budget_id, self._clock.now()
        )
        parts = [part_of(budget, tuple(one.each.items()), max(one.start_at, 0)) for one in windows]
        carried = self._carried(connection, parts)
        changed = [
            (one.limit_id, capacity_of(budget.terms, carry), carry)
            for one, carry in zip(windows, carried, strict=True)
        ]
        store.update_capacities(connection, changed, budget.kind)
        return sum(
            (one.capacity, one.carried) != (capacity, carry)
            for one, (_, capacity, carry) in zip(windows, changed, strict=True)
        )

    # Windows

    def make_windows(self, connection: Connection, parts: Sequence[WindowPart]) -> None:
        """Make windows that are missing, in the caller's transaction; repeating it is harmless."""
        names = {(part.budget.tenant_id, part.budget.budget_id) for part in parts}
        budgets = {
            (one.tenant_id, one.budget_id): one
            for one in store.share_budgets(connection, sorted(names))
        }
        current = [
            part._replace(budget=budgets[part.budget.tenant_id, part.budget.budget_id])
            for part in parts
        ]
        store.insert_windows(connection, current, self._carried(connection, current))

    def open_windows(self, parts: Sequence[WindowPart]) -> None:
        """The same in a transaction of its own."""
        with transaction(self._pool) as connection:
            self.make_windows(connection, parts)

    def _carried(self, connection: Connection, parts: Sequence[WindowPart]) -> list[int]:
        """What each window has left over from the one before; what is held there counts."""
        before: dict[str, str] = {}
        for part in parts:
            terms, budget = part.budget.terms, part.budget
            if terms.carry_over_max and budget.created_at < part.window.start_at:
                values = [value for _, value in part.each]
                window = window_before(terms, part.window)
                before[part.limit_id] = limit_id_of(
                    budget.tenant_id, budget.budget_id, terms, values, window
                )
        counted = store.load_counted(connection, list(before.values())) if before else {}
        return [
            plan_carry(part.budget.terms, counted.get(before[part.limit_id], 0))
            if part.limit_id in before
            else 0
            for part in parts
        ]

    # Reading

    def refresh(self, active: ActiveBudgets) -> bool:
        """Bring a process's copy up to date; True when something had changed."""
        with for_every_tenant(), transaction(self._pool) as connection:
            edits = store.load_edits(connection)
            if edits == active.edits:
                return False
            changed = store.load_changed(connection, active.edits)
        active.apply(edits, changed)
        return True

    def load(self, tenant_id: str, budget_id: str, *, is_any: bool = False) -> Budget:
        """One budget; NotFound when there is none, or only a deleted one."""
        with transaction(self._pool) as connection:
            found = store.load_budget(connection, tenant_id, budget_id)
        if found is None or (found.status == "deleted" and not is_any):
            raise NotFound("there is no such budget", code="unknown_budget")
        return found

    def list_all(self, tenant_id: str, after: tuple[str, str], limit: int) -> list[Budget]:
        """Budgets of a tenant, or of all, in order of id."""
        with transaction(self._pool) as connection:
            return store.list_budgets(connection, tenant_id, after, limit)

    def revisions(self, tenant_id: str, budget_id: str) -> list[Budget]:
        """What was set when, newest first."""
        with transaction(self._pool) as connection:
            return store.list_revisions(connection, tenant_id, budget_id)

    def windows(self, tenant_id: str, budget_id: str, limit: int = 100) -> list[WindowView]:
        """Windows of a budget that somebody worked in, newest first."""
        with transaction(self._pool) as connection:
            return store.list_windows(connection, tenant_id, budget_id, limit)

    def load_windows(self, limit_ids: Sequence[str]) -> dict[str, WindowView]:
        """Windows by the id that the ledger counts them under."""
        with transaction(self._pool) as connection:
            found = store.load_windows(connection, limit_ids)
        return {one.limit_id: one for one in found}

    def load_tenants(self, account_ids: Sequence[str]) -> dict[str, str]:
        """Whose accounts they are; one that does not exist is left out."""
        with transaction(self._pool) as connection:
            return store.load_tenants(connection, account_ids)


def _check_revision(before: Budget | None, revision: int | None) -> None:
    found = before.revision if before is not None and before.status != "deleted" else 0
    if revision is not None and revision != found:
        raise Conflict(
            f"the budget is at revision {found}; read it again",
            code="revision_mismatch",
        )
