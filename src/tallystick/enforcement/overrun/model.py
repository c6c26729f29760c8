"""Overrun response's words: what ran away, what is done about it, what was planned.

A *scope* is dimension -> value; an empty scope is all of a tenant's work. A *finding* is what a
detector saw at one moment; an *overrun* is the episode that findings belong to; a *mitigation*
is one active step of the ladder; a *planned launch* is usage that was announced.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec

from tallystick.clock import HOUR, MINUTE

DIMENSIONS = ("tenant", "key", "user", "feature", "model", "team", "project", "tool")
"""What is watched, each value on its own."""

SCOPE_DIMENSIONS = frozenset(
    [*DIMENSIONS, "org", "product", "provider", "workflow", "environment", "agent"]
)
"""What a mitigation may name; all of its pairs must match."""

TTL_MAX = 30 * 24 * HOUR
"""No mitigation is for ever: what should stay is a budget or a key's allow-list."""


class Severity(StrEnum):
    """How bad, mildest first."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Step(StrEnum):
    """The ladder, mildest first."""

    ALERT = "alert"
    THROTTLE = "throttle"
    DOWNGRADE = "downgrade"
    BLOCK = "block"
    KILL = "kill"


class Kind(StrEnum):
    """What a detector looks for; also the kind of its signal."""

    BURN_RATE = "burn_rate"
    OUTLIER = "outlier"
    ERROR_STORM = "error_storm"
    RETRY_STORM = "retry_storm"


class SeriesKey(NamedTuple):
    """Whose minutes: one value of one dimension of one tenant."""

    tenant_id: str
    dimension: str
    value: str


class Finding(NamedTuple):
    """What one detector saw of one series at one moment (times in micros, of events)."""

    kind: Kind
    detector: str
    """Such as `burn 5m` or `cost per call`."""
    severity: Severity
    since: int
    observed: int
    """USD/9, or a count in a storm."""
    expected: int
    excess_units: int
    """USD/9 above what was expected (in a storm: what was wasted)."""
    detail: str


class Overrun(msgspec.Struct, frozen=True, kw_only=True):
    """One episode; open while `closed_at` is None."""

    overrun_id: str
    tenant_id: str
    kind: Kind
    dimension: str
    value: str
    severity: Severity
    detector: str
    since: int
    seen_at: int
    last_at: int
    closed_at: int | None = None
    observed_units: int
    expected_units: int
    excess_units: int
    detail: str

    @property
    def key(self) -> SeriesKey:
        """The series that it is about."""
        return SeriesKey(self.tenant_id, self.dimension, self.value)

    @property
    def signal_id(self) -> str:
        """The identity of its signal, the same for every repeat."""
        return f"{self.kind}:{self.dimension}={self.value}/{self.overrun_id}"


class Rung(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a policy: taken when an overrun is this bad for this long."""

    step: Step
    severity: Severity = Severity.CRITICAL
    after_seconds: int = 0
    ttl_seconds: int = 3600
    per_minute: int = 60
    downgrade_to: str = ""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Which steps follow by themselves; without one: alerts only."""

    tenant_id: str
    dimension: str = ""
    value: str = ""
    steps: tuple[Rung, ...] = ()


class Mitigation(msgspec.Struct, frozen=True, kw_only=True):
    """One step that is or was in force for a scope; tenant_id "" is every tenant."""

    mitigation_id: str
    tenant_id: str
    scope: Mapping[str, str]
    step: Step
    per_minute: int = 0
    downgrade_to: str = ""
    reason: str
    overrun_id: str = ""
    idempotency_key: str = ""
    starts_at: int
    expires_at: int
    ended_at: int | None = None
    created_by: str


class MitigationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the audit trail."""

    event_id: int
    mitigation_id: str
    tenant_id: str
    kind: str
    """applied, undone or expired."""
    step: Step
    scope: Mapping[str, str]
    reason: str
    acted_at: int
    acted_by: str


class PlannedLaunch(msgspec.Struct, frozen=True, kw_only=True):
    """Usage that was announced: `factor` times the usual, or an amount on top, in [from, to)."""

    launch_id: str
    tenant_id: str
    dimension: str
    value: str
    from_at: int
    to_at: int
    factor: Decimal = Decimal(1)
    extra_units: int = 0
    """USD/9, spread evenly over the launch."""
    reason: str
    created_at: int
    created_by: str
    withdrawn_at: int | None = None

    @property
    def extra_units_per_minute(self) -> int:
        """What it adds to a usual minute."""
        return self.extra_units * MINUTE // (self.to_at - self.from_at)
