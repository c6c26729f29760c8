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
    """What becomes of a capture above its hold: reject, cap or overage."""
    unknown_policy: str
    """What becomes of a started hold that nobody settles: capture or release."""


class LimitPart(NamedTuple):
    """A part of a limit: which window, and how much in the units of its asset."""

    limit_id: str
    units: int


Actuals = tuple[tuple[str, int], ...]
"""What work used, by asset: (("USD/9", 12_000_000), ("tokens", 900)). Every limit of the hold
that counts the asset is counted so; a caller need not know which limits there are."""


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that moves one account, once: the same key answers the same for ever.

    The key belongs to what the request names: an account, a hold, a lease or a charge.
    """

    idempotency_key: str = ""


class GrantRequest(Request, frozen=True):
    """Give credit to an account as a new lot."""

    account_id: str
    units: int
    source: str = "topup"
    priority: int = 100
    expires_at: int | None = None


class ChargeRequest(Request, frozen=True):
    """Take credit from an account, or decline when it does not fit.

    A cost that is known only after the fact is never declined: what does not fit under the
    account's limit is recorded as shortfall. `limits` are parts of limits that it uses; all
    fits or nothing is taken.
    """

    account_id: str
    units: int
    run_id: str = ""
    reason: str = ""
    is_after_the_fact: bool = False
    limits: tuple[LimitPart, ...] = ()
    details: str = ""


class RefundRequest(Request, frozen=True):
    """Give back part (or with `units` None all the rest) of a charge or of a run's charge."""

    charge_id: str | None = None
    tenant_id: str = ""
    run_id: str | None = None
    units: int | None = None
    reason: str = ""


class HoldRequest(Request, frozen=True):
    """Set credit aside for work that is about to begin, and a part of every limit named.

    All of it fits or nothing is taken. `has_started`: the work begins with this hold, so it
    never frees itself. `details` is JSON text that is kept with the operation. Which limits
    match may change between a request and its repetition, so they are not part of the content
    that its key stands for. A part of 0 units is work of unknown cost: let in while there is
    room, and counted when it is captured.
    """

    account_id: str
    units: int
    ttl_seconds: int = 300
    run_id: str = ""
    has_started: bool = False
    limits: tuple[LimitPart, ...] = ()
    details: str = ""


class CaptureRequest(Request, frozen=True):
    """Charge what the work cost and end the hold; the rest of it is free again.

    `limits` are the actual amounts by limit, `actuals` by asset; a limit that neither says
    counts what was held of it.
    """

    hold_id: str
    units: int
    limits: tuple[LimitPart, ...] = ()
    reason: str = ""
    actuals: Actuals = ()


class ReleaseRequest(Request, frozen=True):
    """End a hold without a charge: the work was not done, or cost nothing."""

    hold_id: str
    reason: str = ""


class StartRequest(Request, frozen=True):
    """Say that the work of a hold has begun: from now on it never frees itself."""

    hold_id: str


class ExtendRequest(Request, frozen=True):
    """Give a hold or lease more time, more credit, or both; a lease names its epoch."""

    hold_id: str
    ttl_seconds: int = 0
    units: int = 0
    epoch: int | None = None
    limits: tuple[LimitPart, ...] = ()
    """More of the hold's limits; of a limit in credits as much as `units` when left out."""
    actuals: Actuals = ()
    """The same by asset."""


class LeaseRequest(Request, frozen=True):
    """Lend a block of credit to a worker that authorizes by itself."""

    account_id: str
    units: int
    ttl_seconds: int = 60
    worker: str = ""


class ReportRequest(Request, frozen=True):
    """Charge what a worker used of its lease so far, in all; repeating it charges nothing."""

    lease_id: str
    used_units: int
    epoch: int


class ReturnRequest(Request, frozen=True):
    """Charge what was used of a lease in all and give back the rest."""

    lease_id: str
    used_units: int
    epoch: int


class DueRequest(Request, frozen=True):
    """A hold or lease whose time is over: expire it, or settle it when it is unknown."""

    hold_id: str


class Outcome(msgspec.Struct, frozen=True):
    """What became of a request; the same for ever under the same key."""

    operation_id: str
    kind: str
    status: str
    """posted or declined"""
    account_id: str
    units: int
    available: int
    """After the operation, before the overage limit."""
    code: str = ""
    """Why it was declined, or how a hold was resolved."""
    decided_by: str = ""
    """The limit that declined: account:<id> or limit:<id>. Of what was posted, the soft or
    shadow limit that would have declined."""
    retry: str = ""
    """Whether trying again with a new key can help: wait (holds may end) or never."""
    lot_id: str = ""
    """The lot that a grant made."""
    hold_id: str = ""
    moved: int = 0
    """Units captured, charged, granted or refunded."""
    shortfall: int = 0
    due_at: int | None = None
    epoch: int = 0
    lots: tuple[tuple[str, int], ...] = ()
    """Units earmarked by lot."""
    limit_id: str = ""
    """The window in which a budget decided, once `decided_by` names the budget."""


class Hold(msgspec.Struct, frozen=True):
    """A hold or lease as shown; a resolved one has nothing held."""

    hold_id: str
    account_id: str
    kind: str
    status: str
    run_id: str
    held: int
    drawn: int
    has_started: bool
    due_at: int | None
    epoch: int


class HoldStory(NamedTuple):
    """What a hold was made with, and what it holds now."""

    account_id: str
    tenant_id: str
    run_id: str
    details: str
    """JSON text that its maker gave it."""
    units: int
    """What it was made with."""
    available: int
    """What its account had left then."""
    due_at: int
    total: int | None
    """What it holds and has drawn by now; None: it has ended."""
    due_now: int | None


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
    sequence: int
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


class Limit(msgspec.Struct, frozen=True):
    """A limit window: used + held never pass the capacity, but by recorded overrun."""

    limit_id: str
    asset: str
    capacity: int
    used: int
    held: int
    overrun: int
    kind: str = "hard"
    """hard declines; soft and shadow let work through and count it."""
    let_through: int = 0
    """How much work a soft or shadow limit let through that a hard one would have declined."""


class RunTarget(msgspec.Struct, frozen=True):
    """What a run should have been charged in all."""

    tenant_id: str
    run_id: str
    target_units: int
    reason: str = "usage"


class RunChargeOutcome(NamedTuple):
    """What convergence did for one run; `is_first`: its facts were never asked before."""

    tenant_id: str
    run_id: str
    delta_units: int
    shortfall_units: int
    operation_id: str | None
    is_first: bool


class RunCharge(msgspec.Struct):
    """The one charge of a run: target = charged + shortfall; `refunded` by hand."""

    tenant_id: str
    run_id: str
    account_id: str
    target: int = 0
    charged: int = 0
    shortfall: int = 0
    refunded: int = 0
    captured: int = 0
    has_facts: bool = False
    is_stale: bool = False
    revision: int = 0
    updated_at: int = 0


class Violation(msgspec.Struct, frozen=True):
    """An invariant that does not hold: how often, and some examples."""

    invariant_id: str
    count: int
    examples: list[str]
