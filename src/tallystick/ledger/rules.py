"""Decisions of the ledger, on state in memory. Pure: no store, no clock.

An account's free credit is the sum of its lots' rests minus its overage. Credit is spent
from lots in the order priority, soonest expiry, age, id, then as overage up to the limit.
A hold earmarks lots in that order; what it draws comes from its earmarks, also when a lot has
expired meanwhile. A grant pays back overage first. A refund gives back the newest spend
first, to the lots that it came from; what no lot can take back becomes a new lot of source
"refund".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from tallystick.invariant import check

ISSUED = "@issued"
REVENUE = "@revenue"
EXPIRED = "@expired"
NEVER = 2**63 - 1
CREDIT_ASSET = "CREDIT/6"


class LotState(msgspec.Struct):
    """A lot under lock."""

    lot_id: str
    account_id: str
    source: str
    priority: int
    expires_at: int | None
    created_at: int
    granted: int
    consumed: int = 0
    held: int = 0
    expired: int = 0

    @property
    def free(self) -> int:
        """Units that can still be spent, unless it has expired."""
        return self.granted - self.consumed - self.held - self.expired

    def is_expired(self, now: int) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def spend_order(self) -> tuple[int, int, int, str]:
        """Sorts lots into the order in which they are spent."""
        expiry = NEVER if self.expires_at is None else self.expires_at
        return (self.priority, expiry, self.created_at, self.lot_id)


class AccountState(msgspec.Struct):
    """An account under lock, with its lots in the order in which they are spent."""

    account_id: str
    tenant_id: str
    capture_policy: str
    unknown_policy: str
    sequence: int
    credited: int
    debited: int
    refunded: int
    expired: int
    held: int
    leased: int
    overage: int
    overage_held: int
    overage_limit_units: int | None
    asset: str
    created_at: int
    lots: dict[str, LotState] = {}
    next_expiry: int = 0
    """Nothing expires before; 0: not known yet."""

    @property
    def available(self) -> int:
        """What may be spent before the limit, expiry aside; negative when in overage."""
        return self.credited - self.debited - self.held - self.leased

    @property
    def overage_room(self) -> int:
        """What may still go out, or be held, without a lot."""
        if self.overage_limit_units is None:
            return NEVER
        return max(self.overage_limit_units - self.overage - self.overage_held, 0)

    def check(self) -> None:
        """Raise when the limit is broken."""
        limit = self.overage_limit_units
        if limit is not None and (
            self.available < -limit or self.overage + self.overage_held > limit
        ):
            check(False, "INV-03", f"account {self.account_id} is below its limit")


class HoldState(msgspec.Struct):
    """An open hold or lease under its account's lock; `lots` in the order they are drawn."""

    hold_id: str
    account_id: str
    tenant_id: str
    kind: str
    status: str
    run_id: str
    held: int
    drawn: int
    lots: list[tuple[str, int]]
    overage: int
    limits: list[tuple[str, int]]
    has_started: bool
    epoch: int
    due_at: int

    @property
    def total(self) -> int:
        """All that was ever set aside by it and not given back."""
        return self.held + self.drawn


class LimitState(msgspec.Struct):
    """A limit window under lock."""

    limit_id: str
    asset: str
    capacity: int
    used: int
    held: int
    overrun: int
    kind: str = "hard"
    let_through: int = 0
    rolled: int = 0
    """Used, and out of the window since."""
    slice_micros: int | None = None
    slices: int | None = None
    rolls_at: int | None = None

    @property
    def room(self) -> int:
        """What still fits."""
        return self.capacity - self.used - self.held + self.overrun

    @property
    def span(self) -> int:
        """How long after its beginning a slice has left a rolling window."""
        return (self.slice_micros or 0) * ((self.slices or 0) + 1)

    def fits(self, units: int) -> bool:
        """Whether work fits; what it costs may be unknown (0) only while there is room."""
        return max(units, 1) <= self.room

    def count(self, used: int, held: int) -> int:
        """Move it and return what was counted as used; beyond the capacity is overrun.

        What has rolled off cannot be taken back from what is in the window now.
        """
        counted = max(used, -self.used) if self.slice_micros else used
        self.rolled += used - counted
        self.used += counted
        self.held += held
        self.overrun = max(self.used + self.held - self.capacity, 0)
        return counted

    def roll(self, slices: Sequence[tuple[int, int]], now: int) -> list[tuple[int, int]]:
        """Let slices go that have left the window; return those that stay."""
        left = plan_roll_off(slices, now - self.span)
        gone = self.used - sum(used for _, used in left)
        self.used -= gone
        self.rolled += gone
        self.overrun = max(self.used + self.held - self.capacity, 0)
        self.rolls_at = left[0][0] + self.span if left else None
        return left


def plan_roll_off(slices: Sequence[tuple[int, int]], until: int) -> list[tuple[int, int]]:
    """Return the slices (begin, used), oldest first, that begin after `until`.

    A later correction (a negative slice) is taken from the oldest first: which slice it
    corrects is not known, and so nothing leaves the window early.

    >>> plan_roll_off([(0, 5), (10, 4), (20, -6)], 0)
    [(10, 3)]
    """
    corrected = -sum(used for _, used in slices if used < 0)
    left = []
    for begin, used in slices:
        taken = min(max(used, 0), corrected)
        corrected -= taken
        if used > taken and begin > until:
            left.append((begin, used - taken))
    return left


class Spend(NamedTuple):
    """Where units come from (or go back to, then negative): lots, then overage."""

    lots: tuple[tuple[str, int], ...]
    overage: int

    @property
    def total(self) -> int:
        """All units moved."""
        return sum([units for _, units in self.lots]) + self.overage


def sort_lots(lots: Iterable[LotState]) -> dict[str, LotState]:
    """Put lots into the order in which they are spent."""
    return {lot.lot_id: lot for lot in sorted(lots, key=lambda lot: lot.spend_order)}


def plan_expiry(account: AccountState, now: int) -> list[tuple[LotState, int]]:
    """Return lots whose time is over with what is left in them."""
    return [(lot, lot.free) for lot in account.lots.values() if lot.is_expired(now) and lot.free]


def find_next_expiry(account: AccountState) -> int:
    """The soonest time at which a lot with something free expires; NEVER if none does."""
    times = (lot.expires_at for lot in account.lots.values() if lot.free and lot.expires_at)
    return min(times, default=NEVER)


def plan_spend(account: AccountState, units: int, now: int) -> Spend:
    """Take up to `units`: all that fits, from lots in order and then as overage."""
    taken: list[tuple[str, int]] = []
    rest = units
    for lot in account.lots.values():
        if not rest:
            break
        part = 0 if lot.is_expired(now) else min(rest, lot.free)
        if part > 0:
            taken.append((lot.lot_id, part))
            rest -= part
    return Spend(tuple(taken), min(rest, account.overage_room))


def plan_draw(hold: HoldState, units: int) -> Spend:
    """Take `units`, at most what is held, from the hold's earmarks in order, overage last."""
    taken: list[tuple[str, int]] = []
    rest = units
    for lot_id, earmarked in hold.lots:
        part = min(rest, earmarked)
        if part:
            taken.append((lot_id, part))
            rest -= part
    check(rest <= hold.overage, "INV-07", f"hold {hold.hold_id} draws more than it holds")
    return Spend(tuple(taken), rest)


def reduce_hold(hold: HoldState, part: Spend) -> None:
    """Take a part out of what a hold has earmarked."""
    taken = dict(part.lots)
    rests = [(lot_id, units - taken.get(lot_id, 0)) for lot_id, units in hold.lots]
    hold.lots = [(lot_id, units) for lot_id, units in rests if units]
    hold.overage -= part.overage
    hold.held -= part.total


def plan_refund(spent: Sequence[Spend], units: int, overage_now: int) -> Spend:
    """Give back up to `units` of earlier spends (oldest first), newest spend first.

    `spent` may hold earlier refunds as negative amounts; they reduce what can be given back.
    Overage that a grant has paid back meanwhile (beyond `overage_now`) is not given back here.
    """
    overage = min(sum(spend.overage for spend in spent), overage_now)
    back_overage = min(units, max(overage, 0))
    rest = units - back_overage
    lots: dict[str, int] = {}
    for lot_id, amount in reversed(_still_spent(spent)):
        part = min(rest, amount)
        if part:
            lots[lot_id] = lots.get(lot_id, 0) - part
            rest -= part
    return Spend(tuple(lots.items()), -back_overage)


def _still_spent(spent: Sequence[Spend]) -> list[tuple[str, int]]:
    """What was taken from lots and not given back, oldest first."""
    taken: list[tuple[str, int]] = []
    for spend in spent:
        for lot_id, amount in spend.lots:
            if amount > 0:
                taken.append((lot_id, amount))
            for index in range(len(taken) - 1, -1, -1):
                if amount >= 0:
                    break
                if taken[index][0] == lot_id:
                    back = min(taken[index][1], -amount)
                    taken[index] = (lot_id, taken[index][1] - back)
                    amount += back
    return taken


def plan_convergence(target: int, charged: int, shortfall: int, refunded: int) -> int:
    """Return what to post for a run: target minus posted, never below what was refunded.

    >>> plan_convergence(100, 70, 0, 0), plan_convergence(60, 100, 0, 30)
    (30, -40)
    """
    delta = target - charged - shortfall
    if delta >= 0:
        return delta
    return -min(-delta, shortfall + charged - refunded)


def plan_capture(
    asked: int, target: int, captured: int, posted: int, *, has_facts: bool
) -> tuple[int, int]:
    """Return (what a capture of `asked` still has to post, the run's new target).

    A run whose usage was charged from facts already is not charged again for it: only what
    its captures ask for beyond that is posted, until the facts are asked again.

    >>> plan_capture(10, 0, 0, 0, has_facts=False), plan_capture(10, 8, 0, 8, has_facts=True)
    ((10, 10), (2, 10))
    """
    if not has_facts:
        return asked, target + asked
    new_target = max(target, captured + asked)
    return min(asked, max(new_target - posted, 0)), new_target
