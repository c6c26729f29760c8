"""The book: accounts, lots, holds and limits under lock, and how one operation moves them.

Each verb moves the state in memory by a pure rule and appends one operation, which carries
the same change as deltas. `store.write_book` then writes everything by set. Decisions about
requests are in `decisions`; here is only what keeps the sums right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tallystick.ids import IdSource
from tallystick.ledger.model import Outcome, RunCharge
from tallystick.ledger.rules import (
    EXPIRED,
    ISSUED,
    REVENUE,
    AccountState,
    HoldState,
    LimitState,
    LotState,
    Spend,
    find_next_expiry,
    plan_draw,
    plan_expiry,
    plan_refund,
    reduce_hold,
    sort_lots,
)

RunKey = tuple[str, str]
RESOLUTIONS = ("capture", "release", "hold_expiry", "resolve", "return")
"""Kinds of operation that end a hold or lease (INV-07)."""

_REFUND_PRIORITY = 0
_NOTHING = Spend((), 0)


class Operation(msgspec.Struct):
    """One row of history; what is not named is a delta of zero."""

    account_id: str
    sequence: int
    operation_id: str
    tenant_id: str
    kind: str
    units: int
    available: int
    balance_after: int
    posted_at: int
    outcome: str = "posted"
    code: str = ""
    decided_by: str = ""
    source: str = ""
    target: str = ""
    moved: int = 0
    shortfall: int = 0
    held: int = 0
    leased: int = 0
    overage: int = 0
    overage_held: int = 0
    lot_ids: Sequence[str] = ()
    lot_consumed: Sequence[int] = ()
    lot_held: Sequence[int] = ()
    limit_ids: Sequence[str] = ()
    limit_used: Sequence[int] = ()
    limit_held: Sequence[int] = ()
    hold_id: str | None = None
    epoch: int = 0
    due_at: int | None = None
    run_id: str = ""
    refers_to: str | None = None
    reason: str = ""
    details: str = ""
    key_hash: str | None = None
    digest: str | None = None


def outcome_of(operation: Operation) -> Outcome:
    """What the caller is told: the same whether it was just posted or read from history."""
    is_posted = operation.outcome == "posted"
    earmarked = zip(operation.lot_ids, operation.lot_held, strict=True)
    return Outcome(
        operation_id=operation.operation_id,
        kind=operation.kind,
        status=operation.outcome,
        account_id=operation.account_id,
        units=operation.units,
        available=operation.available,
        code=operation.code,
        decided_by=operation.decided_by,
        retry="" if is_posted else operation.reason,
        lot_id=operation.lot_ids[0] if operation.kind == "grant" else "",
        hold_id=operation.hold_id or "",
        moved=operation.moved,
        shortfall=operation.shortfall,
        due_at=operation.due_at,
        epoch=operation.epoch,
        lots=tuple((lot_id, units) for lot_id, units in earmarked if units > 0),
    )


class ChargeStory(msgspec.Struct):
    """A charge of history: whose it is, what it and its refunds moved, what is left."""

    account_id: str
    run: RunKey | None
    spends: list[Spend]
    rest: int


class Resolution(msgspec.Struct):
    """The end of a hold: `kind` is the operation's, "" when it was never ended."""

    account_id: str
    hold_kind: str
    kind: str
    operation_id: str
    moved: int
    units: int
    run_id: str
    is_settled: bool
    limits: list[tuple[str, int, int]]
    """(limit, held of it, counted as used)."""


class Change(msgspec.Struct):
    """How one operation moves an account: what is spent, set aside and given back."""

    spend: Spend = _NOTHING
    """Consumed (+) or given back (-)."""
    earmark: Spend = _NOTHING
    """Set aside (+) or no longer (-)."""
    is_lease: bool = False
    limits: Sequence[tuple[str, int, int]] = ()
    """(limit, used, held), as deltas."""


class Book:
    """The working set of one transaction; `now` is the posting time of all of it."""

    def __init__(self, ids: IdSource) -> None:
        self.ids = ids
        self.now = 0
        self.accounts: dict[str, AccountState] = {}
        self.lots: dict[str, LotState] = {}
        self.holds: dict[str, HoldState] = {}
        self.limits: dict[str, LimitState] = {}
        self.slices: dict[tuple[str, int], int] = {}
        """What to add to slices of rolling limits, by (limit, begin)."""
        self.rolled_limits: set[str] = set()
        """Rolling limits whose slices are written anew."""
        self.run_charges: dict[RunKey, RunCharge] = {}
        self.run_spends: dict[RunKey, list[Spend]] = {}
        """What runs took and gave back, oldest first; read for runs that may be refunded."""
        self.run_accounts: dict[RunKey, str] = {}
        """The account that first held or was charged for a run."""
        self.charges: dict[str, ChargeStory] = {}
        self.resolutions: dict[str, Resolution] = {}
        """How holds that are not open ended."""
        self.known: dict[str, Operation] = {}
        """Operations by the hash of their key: what a key was answered before."""
        self.operations: list[Operation] = []
        self.new_lots: list[LotState] = []
        self.new_holds: set[str] = set()
        self.changed_holds: set[str] = set()
        self.ended_holds: set[str] = set()
        self.touched_lots: set[str] = set()
        self.touched_limits: set[str] = set()
        self.touched_runs: set[RunKey] = set()

    def account(self, account_id: str) -> AccountState:
        """A locked account, without credit whose time is over."""
        account = self.accounts[account_id]
        if account.next_expiry <= self.now:
            self._expire(account)
        return account

    def grant(
        self, account: AccountState, units: int, source: str, priority: int, expires_at: int | None
    ) -> Operation:
        """Add a lot; it pays back overage first."""
        repaid = min(account.overage, units)
        lot = self._new_lot(account, units, source, priority, expires_at)
        account.credited += units
        return self.post(
            account,
            "grant",
            units,
            Change(Spend(((lot.lot_id, repaid),), -repaid)),
            source=ISSUED,
            target=account.account_id,
            moved=units,
            details=_lot_details(lot),
        )

    def spend(
        self, account: AccountState, kind: str, units: int, change: Change, **more: Any
    ) -> Operation:
        """Charge what `change` spends; units beyond that are the operation's shortfall."""
        moved = change.spend.total
        account.debited += moved
        sides = {"source": account.account_id, "target": REVENUE} if moved else {}
        return self.post(account, kind, units, change, moved=moved, **sides, **more)

    def refund(
        self,
        account: AccountState,
        units: int,
        spent: Sequence[Spend],
        *,
        kind: str = "refund",
        asked: int | None = None,
        limits: Sequence[tuple[str, int, int]] = (),
        **more: Any,
    ) -> Operation:
        """Give units back to where they came from; the rest becomes a lot of its own."""
        back = plan_refund(spent, units, account.overage)
        account.credited += units
        account.refunded += units
        account.next_expiry = 0  # a lot given back to may be over its time
        rest = units + back.total
        details = ""
        if rest:
            lot = self._new_lot(account, rest, "refund", _REFUND_PRIORITY, None)
            back = Spend((*back.lots, (lot.lot_id, 0)), back.overage)
            details = _lot_details(lot)
        return self.post(
            account,
            kind,
            units if asked is None else asked,
            Change(back, limits=limits),
            source=REVENUE,
            target=account.account_id,
            moved=units,
            details=details,
            **more,
        )

    def open_hold(self, account: AccountState, hold: HoldState, **more: Any) -> Operation:
        """Set aside what a new hold or lease earmarks."""
        self.holds[hold.hold_id] = hold
        self.new_holds.add(hold.hold_id)
        change = Change(
            earmark=Spend(tuple(hold.lots), hold.overage),
            is_lease=hold.kind == "lease",
            limits=[(limit_id, 0, units) for limit_id, units in hold.limits],
        )
        return self.post(
            account,
            hold.kind,
            hold.held,
            change,
            operation_id=hold.hold_id,
            hold_id=hold.hold_id,
            run_id=hold.run_id,
            due_at=hold.due_at,
            epoch=hold.epoch,
            **more,
        )

    def draw(self, hold: HoldState, units: int) -> Change:
        """Turn part of what a hold has set aside into a spend."""
        part = plan_draw(hold, units)
        reduce_hold(hold, part)
        hold.drawn += units
        self.changed_holds.add(hold.hold_id)
        return Change(spend=part, earmark=_negative(part), is_lease=hold.kind == "lease")

    def end_hold(self, hold: HoldState, units: int, used: dict[str, int] | None = None) -> Change:
        """Draw `units`, give the rest back, and count what was `used` of its limits."""
        change = self.draw(hold, units)
        rest = Spend(tuple(hold.lots), hold.overage)
        reduce_hold(hold, rest)
        del self.holds[hold.hold_id]
        self.changed_holds.discard(hold.hold_id)
        if hold.hold_id in self.new_holds:
            self.new_holds.discard(hold.hold_id)
        else:
            self.ended_holds.add(hold.hold_id)
        lots = {lot_id: -taken for lot_id, taken in change.spend.lots}
        for lot_id, given_back in rest.lots:
            lots[lot_id] = lots.get(lot_id, 0) - given_back
        change.earmark = Spend(tuple(lots.items()), -change.spend.overage - rest.overage)
        used = used or {}
        change.limits = [(limit_id, used.get(limit_id, 0), -held) for limit_id, held in hold.limits]
        self.accounts[hold.account_id].next_expiry = 0  # a lot given back to may be over its time
        return change

    def decline(self, account: AccountState, kind: str, units: int, **more: Any) -> Operation:
        """Record that nothing was moved, and why."""
        return self.post(account, kind, units, Change(), outcome="declined", **more)

    def record(self, account: AccountState, kind: str, details: str) -> Operation:
        """Append something that moves nothing."""
        return self.post(account, kind, 0, Change(), details=details)

    def post(
        self,
        account: AccountState,
        kind: str,
        units: int,
        change: Change,
        *,
        operation_id: str | None = None,
        **more: Any,
    ) -> Operation:
        """Apply a change to lots, overage and limits, and append its operation."""
        lot_ids, consumed, held = self._move_lots(change)
        account.overage += change.spend.overage
        account.overage_held += change.earmark.overage
        set_aside = change.earmark.total
        if change.is_lease:
            account.leased += set_aside
        else:
            account.held += set_aside
        for limit_id, used, limit_held in change.limits:
            self.count_limit(limit_id, used, limit_held)
        account.check()
        account.sequence += 1
        operation = Operation(
            account_id=account.account_id,
            sequence=account.sequence,
            operation_id=operation_id or self.ids.next_id(),
            tenant_id=account.tenant_id,
            kind=kind,
            units=units,
            available=account.available,
            balance_after=account.credited - account.debited,
            posted_at=self.now,
            held=0 if change.is_lease else set_aside,
            leased=set_aside if change.is_lease else 0,
            overage=change.spend.overage,
            overage_held=change.earmark.overage,
            lot_ids=lot_ids,
            lot_consumed=consumed,
            lot_held=held,
            limit_ids=[limit_id for limit_id, _, _ in change.limits],
            limit_used=[used for _, used, _ in change.limits],
            limit_held=[limit_held for _, _, limit_held in change.limits],
            **more,
        )
        self.operations.append(operation)
        self._remember(operation)
        return operation

    def count_limit(self, limit_id: str, used: int, held: int) -> None:
        """Move a limit; of a rolling one what was used belongs to the slice of now."""
        limit = self.limits[limit_id]
        counted = limit.count(used, held)
        self.touched_limits.add(limit_id)
        if limit.slice_micros and counted:
            begin = self.now // limit.slice_micros * limit.slice_micros
            key = (limit_id, begin)
            self.slices[key] = self.slices.get(key, 0) + counted
            leaves_at = begin + limit.span
            limit.rolls_at = min(limit.rolls_at or leaves_at, leaves_at)

    def roll_limit(self, limit_id: str, slices: Sequence[tuple[int, int]]) -> None:
        """Let the slices of a limit go that have left its window."""
        for begin, used in self.limits[limit_id].roll(slices, self.now):
            self.slices[limit_id, begin] = used
        self.rolled_limits.add(limit_id)
        self.touched_limits.add(limit_id)

    def _remember(self, operation: Operation) -> None:
        """Keep what was read of history up to date for later requests of the same group."""
        hold_id = operation.hold_id
        if hold_id is not None and operation.outcome == "posted":
            if operation.kind in RESOLUTIONS:
                is_lease = operation.kind == "return" or operation.leased != 0
                hold_kind = "lease" if is_lease else "hold"
                self.resolutions[hold_id] = Resolution(
                    operation.account_id,
                    hold_kind,
                    operation.kind,
                    operation.operation_id,
                    operation.moved,
                    operation.units,
                    operation.run_id,
                    False,
                    [
                        (limit_id, -held, used)
                        for limit_id, held, used in zip(
                            operation.limit_ids,
                            operation.limit_held,
                            operation.limit_used,
                            strict=True,
                        )
                    ],
                )
            elif operation.kind == "settle" and hold_id in self.resolutions:
                self.resolutions[hold_id].is_settled = True
        if not operation.moved:
            return
        spend = Spend(
            tuple(zip(operation.lot_ids, operation.lot_consumed, strict=True)), operation.overage
        )
        run = (operation.tenant_id, operation.run_id)
        if operation.run_id and run in self.run_spends:
            self.run_spends[run].append(spend)
        story = self.charges.get(operation.refers_to or "")
        if story is not None:
            story.spends.append(spend)
            story.rest -= operation.moved

    def _move_lots(self, change: Change) -> tuple[Sequence[str], Sequence[int], Sequence[int]]:
        if not change.spend.lots and not change.earmark.lots:
            return (), (), ()
        moved: dict[str, list[int]] = {}
        for lot_id, units in change.spend.lots:
            moved.setdefault(lot_id, [0, 0])[0] += units
        for lot_id, units in change.earmark.lots:
            moved.setdefault(lot_id, [0, 0])[1] += units
        for lot_id, (consumed, held) in moved.items():
            lot = self.lots[lot_id]
            lot.consumed += consumed
            lot.held += held
        self.touched_lots.update(moved)
        return list(moved), [pair[0] for pair in moved.values()], [p[1] for p in moved.values()]

    def _expire(self, account: AccountState) -> None:
        for lot, units in plan_expiry(account, self.now):
            lot.expired += units
            self.touched_lots.add(lot.lot_id)
            account.debited += units
            account.expired += units
            self.post(
                account,
                "lot_expiry",
                units,
                Change(Spend(((lot.lot_id, 0),), 0)),
                source=account.account_id,
                target=EXPIRED,
                moved=units,
            )
        account.next_expiry = find_next_expiry(account)

    def _new_lot(
        self,
        account: AccountState,
        units: int,
        source: str,
        priority: int,
        expires_at: int | None,
    ) -> LotState:
        lot = LotState(
            lot_id=self.ids.next_id(),
            account_id=account.account_id,
            source=source,
            priority=priority,
            expires_at=expires_at,
            created_at=self.now,
            granted=units,
        )
        self.new_lots.append(lot)
        self.add_lots(account, [lot])
        return lot

    def add_lots(self, account: AccountState, lots: Sequence[LotState]) -> None:
        """Put lots among an account's own, in the order in which they are spent."""
        account.lots = sort_lots([*account.lots.values(), *lots])
        account.next_expiry = 0
        for lot in lots:
            self.lots[lot.lot_id] = lot


def _negative(spend: Spend) -> Spend:
    return Spend(tuple((lot_id, -units) for lot_id, units in spend.lots), -spend.overage)


def _lot_details(lot: LotState) -> str:
    """What is frozen at grant, kept in history so that a changed row is found."""
    frozen = {
        "lot_id": lot.lot_id,
        "source": lot.source,
        "priority": lot.priority,
        "expires_at": lot.expires_at,
        "granted": lot.granted,
    }
    return msgspec.json.encode({"lot": frozen}).decode()
