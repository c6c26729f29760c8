"""The vault's words: what spend is kept by, what is counted, and what it asks of others.

Spend is kept by scope and quarter of an hour: every time zone's day begins on one, so any
budget window is a sum of whole buckets. The protocols at the end are the vault's ports: who
assigns budgets, who counts usage against them, and who tells people.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import psycopg

from tallystick.clock import MINUTE
from tallystick.units import CREDIT, USD, Asset

Integers = npt.NDArray[np.int64]
Connection = psycopg.Connection[Any]

FOLLOWER = "vault"
"""The name under which positions are kept."""

BUCKET = 15 * MINUTE
"""The width of a bucket: offsets of time zones are multiples of it."""

DIMENSIONS: Mapping[str, str] = {
    "org": "org",
    "user": "user_id",
    "project": "project_id",
    "team": "team",
    "product": "product",
    "feature": "feature",
    "key": "key_id",
    "model": "model",
    "provider": "provider",
    "workflow": "workflow",
    "environment": "environment",
}
"""Name in a budget's scope and in the API -> column; all of one tenant."""

SCOPE_COLUMNS = ("tenant_id", *DIMENSIONS.values())

MEASURES = (
    "usd_units",
    "credit_units",
    "tokens_input",
    "tokens_output",
    "requests",
    "errors",
    "events",
)
"""What is counted. Credits are as rated: the ledger's charge may leave attempts out."""

TOKENS = Asset("tokens", 0)
REQUESTS = Asset("requests", 0)
ASSETS: Mapping[str, Asset] = {
    "USD": USD,
    "CREDIT": CREDIT,
    "tokens": TOKENS,
    "requests": REQUESTS,
}


class Cells(NamedTuple):
    """What one step adds: a row a scope and bucket."""

    scopes: Sequence[tuple[str, ...]]
    """Distinct scopes, each in the order of SCOPE_COLUMNS."""
    places: Integers
    """Of each cell: which scope."""
    buckets: Integers
    """Of each cell: when its bucket begins, micros."""
    sums: Mapping[str, Integers]
    """Of each cell, by name: see `rules.SUMMED`."""


class Spent(msgspec.Struct, frozen=True):
    """What was spent in a scope and range; fields are MEASURES."""

    usd_units: int = 0
    credit_units: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    requests: int = 0
    errors: int = 0
    events: int = 0

    def units(self, asset: str) -> int:
        """How much of an asset: units of ASSETS."""
        if asset == "tokens":
            return self.tokens_input + self.tokens_output
        if asset == "requests":
            return self.requests
        return self.usd_units if asset == "USD" else self.credit_units


class Threshold(msgspec.Struct, frozen=True):
    """A share of a budget from which on something is done."""

    at: str
    """Decimal text, 1 is the whole."""
    action: str = "alert"


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """A budget in the window of one moment."""

    budget_id: str
    limit_id: str
    """The ledger's window: <budget id>@<start>, or that of one value."""
    tenant_id: str
    scope: Mapping[str, str]
    """Dimension -> value; all must agree."""
    asset: str
    """A name of ASSETS."""
    amount_units: int
    from_at: int
    to_at: int
    span: int = 0
    """Of a rolling window, micros: usage is in it for so long; 0: it is a calendar window."""
    used_units: int = 0
    """What the ledger has counted."""
    held_units: int = 0
    thresholds: tuple[Threshold, ...] = ()
    is_soft: bool = False
    """A soft budget stops nothing: the vault tells when it is spent."""


class Assignments(Protocol):
    """Who knows the budgets."""

    def limited(self, connection: Connection) -> Collection[str]:
        """Tenants that have budgets, as of now."""
        ...

    def matching(self, tenant_id: str, scope: Mapping[str, str], at: int) -> list[Assignment]:
        """Budgets, in their windows at a moment, that limit work of this scope.

        A budget of each value of a dimension comes with the scope's value.
        """
        ...

    def current(self, connection: Connection, at: int) -> list[Assignment]:
        """Every budget in its windows at a moment."""
        ...


class UsageCounter(Protocol):
    """Who counts usage against limits."""

    def count_usage(
        self, connection: Connection, targets: Sequence[tuple[str, str, int]]
    ) -> object:
        """(limit id, source key, target units) each: post target minus what was posted."""
        ...


class NoAssignments:
    """No budgets."""

    def limited(self, connection: Connection) -> Collection[str]:
        """None."""
        return ()

    def matching(self, tenant_id: str, scope: Mapping[str, str], at: int) -> list[Assignment]:
        """None."""
        return []

    def current(self, connection: Connection, at: int) -> list[Assignment]:
        """None."""
        return []
