"""Matching: which budgets an attribution falls under, in microseconds, whatever their number.

Budgets of a tenant are kept by the dimensions that they name, and under each such set by the
values: a lookup for each set, however many budgets there are. A process reads changed budgets
again when its copy is older than CHECK_SECONDS; work is never decided on an older copy than
EDIT_SECONDS_MAX.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tallystick.enforcement.attribution import named
from tallystick.enforcement.budgets.model import EACH, LEDGER_ASSETS, Budget, Window
from tallystick.enforcement.budgets.rules import each_of, limit_id_of, window_at

CHECK_SECONDS = 0.25
"""From this age on a copy is compared with the store; meanwhile others work with it."""

_PARTS_MAX = 100_000
"""Windows of a tenant remembered: those of the users that are at work."""

EDIT_SECONDS_MAX = 0.5
"""No work is decided on an older copy; it waits for the comparison instead."""


class WindowPart(NamedTuple):
    """A window of a budget that work falls under."""

    budget: Budget
    each: tuple[tuple[str, str], ...]
    window: Window
    limit_id: str

    @property
    def asset(self) -> str:
        """As the ledger calls it."""
        return LEDGER_ASSETS[self.budget.terms.asset]


def fill_attribution(tenant_id: str, attribution: Mapping[str, str]) -> dict[str, str]:
    """Dimension -> value under the names of budgets; the tenant is an organization of its own.

    Names that budgets do not know are kept and mean nothing here.
    """
    return {"org": tenant_id, **named(attribution)}


class _Group:
    """Budgets that name the same dimensions, by the values that they name."""

    def __init__(self, fixed: tuple[str, ...], each: tuple[str, ...]) -> None:
        self.fixed = fixed
        self.each = each
        self.budgets: dict[tuple[str, ...], list[Budget]] = {}


class TenantIndex:
    """The active budgets of a tenant."""

    def __init__(self, budgets: Iterable[Budget]) -> None:
        self._groups: dict[tuple[tuple[str, ...], tuple[str, ...]], _Group] = {}
        for budget in sorted(budgets, key=lambda one: one.budget_id):
            scope = budget.terms.scope
            own = ("org", budget.tenant_id)  # all work of the tenant is its own, whatever it says
            fixed = tuple(sorted(n for n in scope if scope[n] != EACH and (n, scope[n]) != own))
            signature = (fixed, each_of(scope))
            group = self._groups.setdefault(signature, _Group(*signature))
            values = tuple(scope[name] for name in fixed)
            group.budgets.setdefault(values, []).append(budget)
        self._parts: dict[tuple[str, _Each], WindowPart] = {}

    def parts(self, attribution: Mapping[str, str], at: int) -> list[WindowPart]:
        """The windows that filled attribution falls under at a moment."""
        found = []
        for budget, each in self.match(attribution):
            key = (budget.budget_id, each)
            part = self._parts.get(key)
            if part is None or not part.window.has(at):
                if len(self._parts) > _PARTS_MAX:
                    self._parts.clear()
                part = self._parts[key] = part_of(budget, each, at)
            found.append(part)
        return found

    def match(self, attribution: Mapping[str, str]) -> list[tuple[Budget, _Each]]:
        """Budgets that filled attribution falls under, with the values of their "*"."""
        found: list[tuple[Budget, _Each]] = []
        get = attribution.get
        for group in self._groups.values():
            budgets = group.budgets.get(tuple([get(name, "") for name in group.fixed]))
            if budgets is None:
                continue
            each = tuple([(name, get(name, "")) for name in group.each])
            if all(value for _, value in each):
                found += [(budget, each) for budget in budgets]
        return found

    def may_match(self, attribution: Mapping[str, str]) -> list[Budget]:
        """Budgets that work with this attribution, and more of it, could fall under."""
        return [
            budget
            for group in self._groups.values()
            for budgets in group.budgets.values()
            for budget in budgets
            if all(
                attribution.get(name) in (None, value)
                for name, value in budget.terms.scope.items()
                if value != EACH
            )
        ]


_Each = tuple[tuple[str, str], ...]
_EMPTY = TenantIndex([])


class ActiveBudgets:
    """A process's copy of all active budgets; changes are applied, tenants compiled again."""

    def __init__(self) -> None:
        self.edits = -1
        self._by_tenant: dict[str, dict[str, Budget]] = {}
        self._indexes: dict[str, TenantIndex] = {}

    def apply(self, edits: int, changed: Iterable[Budget]) -> None:
        """Take budgets as they are now, up to an edit."""
        tenants = set()
        for budget in changed:
            own = self._by_tenant.setdefault(budget.tenant_id, {})
            if budget.status == "active":
                own[budget.budget_id] = budget
            else:
                own.pop(budget.budget_id, None)
            tenants.add(budget.tenant_id)
        for tenant_id in tenants:
            self._indexes[tenant_id] = TenantIndex(self._by_tenant[tenant_id].values())
        self.edits = edits

    def index(self, tenant_id: str) -> TenantIndex:
        """The budgets of one tenant."""
        return self._indexes.get(tenant_id, _EMPTY)

    def tenants(self) -> list[str]:
        """Tenants with active budgets."""
        return [tenant_id for tenant_id, own in self._by_tenant.items() if own]

    def of(self, tenant_id: str) -> list[Budget]:
        """The active budgets of a tenant."""
        return list(self._by_tenant.get(tenant_id, {}).values())

    def match(self, tenant_id: str, attribution: Mapping[str, str], at: int) -> list[WindowPart]:
        """The windows that work falls under at a moment; missing names are filled."""
        index = self._indexes.get(tenant_id)
        if index is None:
            return []
        return index.parts(fill_attribution(tenant_id, attribution), at)


def part_of(budget: Budget, each: _Each, at: int) -> WindowPart:
    """The window of a budget at a moment."""
    terms = budget.terms
    window = window_at(terms, at)
    values = [value for _, value in each]
    limit_id = limit_id_of(budget.tenant_id, budget.budget_id, terms, values, window)
    return WindowPart(budget, each, window, limit_id)
