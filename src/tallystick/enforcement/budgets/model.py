"""Budgets' words. Amounts are integers of the asset's unit; times are micros."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from tallystick.units import CREDIT, USD, Asset

DIMENSIONS = (
    "org", "team", "product", "feature", "project", "user", "key", "model", "provider",
    "workflow", "environment",
)  # fmt: skip
"""What a scope may name."""

EACH = "*"
"""A scope's value that means: a window of its own for every value."""

ASSETS: Mapping[str, Asset] = {
    "USD": USD,
    "CREDIT": CREDIT,
    "tokens": Asset("tokens", 0),
    "requests": Asset("requests", 0),
}
LEDGER_ASSETS: Mapping[str, str] = {
    "USD": str(USD),
    "CREDIT": str(CREDIT),
    "tokens": "tokens",
    "requests": "requests",
}
"""How the ledger calls them."""

PERIODS = ("day", "week", "month", "rolling")
ACTIONS = ("alert", "throttle", "downgrade", "block")
SLICES = 60
"""A rolling window lets go what was used in slices of this part of it."""


class Threshold(msgspec.Struct, frozen=True):
    """What happens when a share of the amount is used or held."""

    at: Decimal
    """0.8 is 80 percent of the amount."""
    action: str


class BudgetTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What a person sets: which work, how much of what, in which window, and what then."""

    name: str = ""
    scope: Mapping[str, str] = {}
    """Dimension -> value; all must agree; empty is the whole tenant; "*" is each value."""
    asset: str
    amount: int
    """In units of the asset: nano-dollars, micro-credits, tokens or requests."""
    window: str = "month"
    rolling_hours: int = 0
    anchor_day: int = 1
    """Of a week 1 (Monday) to 7, of a month 1 to 31, clipped to its last day."""
    time_zone: str = "UTC"
    carry_over_max: int = 0
    """At most so much of what was left of the window before is added; 0: nothing."""
    is_hard: bool = True
    """False: work is let through beyond the amount, and counted."""
    is_shadow: bool = False
    """Nothing is blocked; what would have been is counted."""
    thresholds: tuple[Threshold, ...] = ()

    @property
    def kind(self) -> str:
        """What the ledger does at the end of the capacity: hard, soft or shadow."""
        if self.is_shadow:
            return "shadow"
        return "hard" if self.is_hard else "soft"


class Budget(msgspec.Struct, frozen=True):
    """A budget as of a revision."""

    tenant_id: str
    budget_id: str
    revision: int
    status: str
    """active, paused (not enforced) or deleted."""
    terms: BudgetTerms
    created_at: int
    changed_at: int
    changed_by: str

    @property
    def kind(self) -> str:
        """What the ledger does at the end of its windows: what is not active refuses nothing."""
        return self.terms.kind if self.status == "active" else "shadow"


class Window(msgspec.Struct, frozen=True):
    """[start_at, end_at); a rolling window has no end and begins at 0."""

    start_at: int
    end_at: int | None

    def has(self, at: int) -> bool:
        """Whether a moment is in it."""
        return self.end_at is None or self.start_at <= at < self.end_at


class WindowView(msgspec.Struct, frozen=True):
    """A window with what the ledger counted in it."""

    limit_id: str
    tenant_id: str
    budget_id: str
    each: Mapping[str, str]
    start_at: int
    end_at: int | None
    carried: int
    capacity: int
    used: int
    held: int
    overrun: int
    let_through: int

    @property
    def room(self) -> int:
        """What still fits."""
        return max(self.capacity - self.used - self.held, 0)
