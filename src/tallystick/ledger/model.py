"""The ledger's words. Units are integers of CREDIT/6; times are micros."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Account(msgspec.Struct, frozen=True):
    """An account of credits; `overage_limit_units` None means no limit."""

    account_id: str
    tenant_id: str
    overage_limit_units: int | None
    capture_policy: str


class GrantRequest(msgspec.Struct, frozen=True):
    """Give credit to an account as a new lot."""

    account_id: str
    units: int
    idempotency_key: str
    source: str = "topup"
    priority: int = 100
    expires_at: int | None = None


class ChargeRequest(msgspec.Struct, frozen=True):
    """Take credit from an account, or decline when it does not fit."""

    account_id: str
    units: int
    idempotency_key: str
    run_id: str = ""
    reason: str = ""


class RefundRequest(msgspec.Struct, frozen=True):
    """Give back part (or with `units` None all the rest) of a charge or of a run's charge."""

    idempotency_key: str
    charge_id: str | None = None
    tenant_id: str = ""
    run_id: str | None = None
    units: int | None = None
    reason: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What became of a request; the same for ever under the same key."""

    operation_id: str
    kind: str
    status: str
    """posted or declined"""
    account_id: str
    units: int
    available: int
    code: str = ""
    """Why it was declined: credit_exhausted."""
    lot_id: str = ""


class Bucket(msgspec.Struct, frozen=True):
    """One lot as shown: granted = available + held + captured + expired (INV-15)."""

    lot_id: str
    source: str
    priority: int
    expires_at: int | None
    granted: int
    available: int
    held: int
    captured: int
    expired: int


class Balance(msgspec.Struct, frozen=True):
    """What an account has: `available` may be negative down to the overage limit."""

    account_id: str
    tenant_id: str
    available: int
    held: int
    leased: int
    granted: int
    captured: int
    expired: int
    refunded: int
    overage: int
    overage_limit_units: int | None
    buckets: list[Bucket]


class EntryView(msgspec.Struct, frozen=True):
    """One entry of an account: units in (+) or out (-)."""

    sequence: int
    operation_id: str
    kind: str
    units: int
    counterpart: str
    run_id: str
    reason: str
    shortfall: int
    balance_after: int
    posted_at: int


class RunTarget(msgspec.Struct, frozen=True):
    """What a run should have been charged in all."""

    tenant_id: str
    run_id: str
    target_units: int
    reason: str = "usage"


class RunChargeOutcome(NamedTuple):
    """What convergence did for one run."""

    tenant_id: str
    run_id: str
    delta_units: int
    shortfall_units: int
    operation_id: str | None


class RunCharge(msgspec.Struct):
    """The one charge of a run: target = charged + shortfall; `refunded` by hand."""

    tenant_id: str
    run_id: str
    account_id: str
    target: int
    charged: int
    shortfall: int
    refunded: int
    revision: int
    updated_at: int


class Violation(msgspec.Struct, frozen=True):
    """An invariant that does not hold: how often, and some examples."""

    invariant_id: str
    count: int
    examples: list[str]
