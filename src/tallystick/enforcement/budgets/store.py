"""Budgets in PostgreSQL: rows to structs and back; statements are in store.sql."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import psycopg

from tallystick.enforcement.budgets.matching import WindowPart
from tallystick.enforcement.budgets.model import SLICES, Budget, BudgetTerms, WindowView
from tallystick.enforcement.budgets.rules import capacity_of, slice_micros
from tallystick.errors import InvalidInput
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.budgets", "store.sql").items()
}
_BUDGET_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_terms = msgspec.json.Decoder(BudgetTerms)
Connection = psycopg.Connection[Any]
_Row = Any


class EachWindow(NamedTuple):
    """A window of a budget of each value."""

    tenant_id: str
    budget_id: str
    each: dict[str, str]
    """Dimension -> the value that "*" stands for."""


def check_budget_id(budget_id: str) -> None:
    """Refuse ids that would not fit into a window's name."""
    if not _BUDGET_ID.fullmatch(budget_id):
        raise InvalidInput(
            "a budget's id has 1 to 64 letters, digits, dots, dashes and underscores",
            field="budget_id",
        )


def next_edit(connection: Connection) -> int:
    """Begin an edit; edits of all budgets take turns."""
    return int(connection.execute(_SQL["next_edit"]).fetchall()[0][0])


def load_edits(connection: Connection) -> int:
    """How many edits there were."""
    return int(connection.execute(_SQL["load_edits"]).fetchall()[0][0])


def load_changed(connection: Connection, edits: int) -> list[Budget]:
    """Budgets that were edited since."""
    return _budgets(connection.execute(_SQL["load_changed"], {"edits": edits}).fetchall())


def load_budget(connection: Connection, tenant_id: str, budget_id: str) -> Budget | None:
    """One budget, deleted or not."""
    arguments = {"tenant_id": tenant_id, "budget_id": budget_id}
    found = _budgets(connection.execute(_SQL["load_budget"], arguments).fetchall())
    return found[0] if found else None


def lock_budget(connection: Connection, tenant_id: str, budget_id: str) -> Budget | None:
    """The same, locked to be edited."""
    arguments = {"tenant_id": tenant_id, "budget_id": budget_id}
    found = _budgets(connection.execute(_SQL["lock_budget"], arguments).fetchall())
    return found[0] if found else None


def share_budgets(connection: Connection, names: Sequence[tuple[str, str]]) -> list[Budget]:
    """Budgets, locked against edits."""
    arguments = {
        "tenant_ids": [tenant_id for tenant_id, _ in names],
        "budget_ids": [budget_id for _, budget_id in names],
    }
    return _budgets(connection.execute(_SQL["share_budgets"], arguments).fetchall())


def list_budgets(
    connection: Connection, tenant_id: str, after: tuple[str, str], limit: int
) -> list[Budget]:
    """Budgets that are not deleted."""
    arguments = {
        "tenant_id": tenant_id,
        "after_tenant": after[0],
        "after_budget": after[1],
        "limit": limit,
    }
    return _budgets(connection.execute(_SQL["list_budgets"], arguments).fetchall())


def list_revisions(connection: Connection, tenant_id: str, budget_id: str) -> list[Budget]:
    """What was set when, newest first."""
    arguments = {"tenant_id": tenant_id, "budget_id": budget_id}
    return _budgets(connection.execute(_SQL["list_revisions"], arguments).fetchall())


def write_budget(connection: Connection, budget: Budget, edit: int) -> Budget:
    """Write a budget and keep its revision."""
    arguments = {
        "tenant_id": budget.tenant_id,
        "budget_id": budget.budget_id,
        "revision": budget.revision,
        "status": budget.status,
        "content": msgspec.json.encode(budget.terms).decode(),
        "edit": edit,
        "now": budget.changed_at,
        "changed_by": budget.changed_by,
    }
    connection.execute(_SQL["append_revision"], arguments)
    return _budgets(connection.execute(_SQL["write_budget"], arguments).fetchall())[0]


def insert_windows(
    connection: Connection, parts: Sequence[WindowPart], carried: Sequence[int]
) -> None:
    """Make windows and their limits, those that are missing."""
    ordered = sorted(zip(parts, carried, strict=True), key=lambda one: one[0].limit_id)
    arguments = {
        "limit_ids": [part.limit_id for part, _ in ordered],
        "tenant_ids": [part.budget.tenant_id for part, _ in ordered],
        "budget_ids": [part.budget.budget_id for part, _ in ordered],
        "each": [msgspec.json.encode(dict(part.each)).decode() for part, _ in ordered],
        "start_at": [part.window.start_at for part, _ in ordered],
        "end_at": [part.window.end_at for part, _ in ordered],
        "carried": [carry for _, carry in ordered],
        "assets": [part.asset for part, _ in ordered],
        "capacities": [capacity_of(part.budget.terms, carry) for part, carry in ordered],
        "kinds": [part.budget.kind for part, _ in ordered],
        "slice_micros": [slice_micros(part.budget.terms) for part, _ in ordered],
        "slices": [SLICES if part.window.end_at is None else None for part, _ in ordered],
    }
    connection.execute(_SQL["insert_windows"], arguments)
    connection.execute(_SQL["insert_limits"], arguments)


def load_counted(connection: Connection, limit_ids: Sequence[str]) -> dict[str, int]:
    """What is used and held of limits; those that nobody made are left out."""
    arguments = {"limit_ids": list(limit_ids)}
    return dict(connection.execute(_SQL["load_counted"], arguments).fetchall())


def lock_windows(
    connection: Connection, tenant_id: str, budget_id: str, now: int
) -> list[WindowView]:
    """Windows of a budget under way, their limits locked."""
    arguments = {"tenant_id": tenant_id, "budget_id": budget_id, "now": now}
    return _windows(connection.execute(_SQL["lock_windows"], arguments).fetchall())


def update_capacities(
    connection: Connection, windows: Sequence[tuple[str, int, int]], kind: str
) -> None:
    """Set (limit id, capacity, carried) of windows that are locked."""
    if windows:
        arguments = {
            "limit_ids": [limit_id for limit_id, _, _ in windows],
            "capacities": [capacity for _, capacity, _ in windows],
            "kinds": [kind] * len(windows),
            "carried": [carry for _, _, carry in windows],
        }
        connection.execute(_SQL["update_capacities"], arguments)
        connection.execute(_SQL["update_carried"], arguments)


def list_windows(
    connection: Connection, tenant_id: str, budget_id: str, limit: int
) -> list[WindowView]:
    """Windows of a budget, newest first."""
    arguments = {"tenant_id": tenant_id, "budget_id": budget_id, "limit": limit}
    return _windows(connection.execute(_SQL["list_windows"], arguments).fetchall())


def load_windows(connection: Connection, limit_ids: Sequence[str]) -> list[WindowView]:
    """Windows by id."""
    arguments = {"limit_ids": list(limit_ids)}
    return _windows(connection.execute(_SQL["load_windows"], arguments).fetchall())


def load_each(connection: Connection, now: int) -> list[EachWindow]:
    """The windows under way of budgets with a window for each value."""
    rows = connection.execute(_SQL["load_each"], {"now": now}).fetchall()
    return [EachWindow(tenant, budget, msgspec.json.decode(each)) for tenant, budget, each in rows]


def load_carrying(connection: Connection) -> list[Budget]:
    """Active budgets that carry over."""
    return _budgets(connection.execute(_SQL["load_carrying"]).fetchall())


def load_crossed(
    connection: Connection, now: int, limit: int
) -> list[tuple[str, Decimal, str, int]]:
    """Thresholds to be told: (limit id, share, gravest action, amount with carry-over)."""
    arguments = {"now": now, "limit": limit}
    return connection.execute(_SQL["load_crossed"], arguments).fetchall()


def upsert_crossing(
    connection: Connection, limit_id: str, at: Decimal, total: int, now: int
) -> None:
    """Remember that a threshold was crossed."""
    arguments = {"limit_id": limit_id, "at": at, "total": total, "now": now}
    connection.execute(_SQL["upsert_crossing"], arguments)


def clear_crossings(connection: Connection, now: int) -> list[tuple[str, Decimal]]:
    """Take crossings back that are over: (limit id, share)."""
    return connection.execute(_SQL["clear_crossings"], {"now": now}).fetchall()


def load_tenants(connection: Connection, account_ids: Sequence[str]) -> dict[str, str]:
    """Whose accounts they are; one that does not exist is left out."""
    arguments = {"account_ids": list(account_ids)}
    return dict(connection.execute(_SQL["load_account_tenants"], arguments).fetchall())


def _budgets(rows: Sequence[_Row]) -> list[Budget]:
    return [Budget(*[*row[:4], _terms.decode(row[4]), *row[5:8]]) for row in rows]


def _windows(rows: Sequence[_Row]) -> list[WindowView]:
    return [WindowView(*[*row[:3], msgspec.json.decode(row[3]), *row[4:12]]) for row in rows]
