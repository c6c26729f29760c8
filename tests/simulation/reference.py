"""The reference: what the ledger promises, in plain Python, sharing no rule with it.

One account of one tenant. Credit is a list of boxes; a hold carries parts of boxes; whatever
no box covers is debt. It answers each request with (status, code, moved, shortfall,
available), which is what the ledger must have answered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tallystick.ledger import (
    CaptureRequest,
    ChargeRequest,
    DueRequest,
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    LeaseRequest,
    RefundRequest,
    ReleaseRequest,
    ReportRequest,
    ReturnRequest,
    StartRequest,
)

SECOND = 1_000_000
GRACE = 3600 * SECOND
FOREVER = 2**62


@dataclass(eq=False)
class Box:
    """A lot: what it has free; `age` orders boxes of one priority and expiry."""

    priority: int
    until: int
    age: int
    free: int


@dataclass
class Part:
    """Units out of a box, or out of nothing (debt)."""

    box: Box | None
    units: int


@dataclass
class Claim:
    """An open hold or lease."""

    kind: str
    parts: list[Part]
    run: str
    started: bool
    due: int
    limits: dict[str, int]
    drawn: int = 0
    unknown: bool = False
    epoch: int = 1
    end: str = ""
    taken: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    settled: bool = False

    @property
    def left(self) -> int:
        return sum(part.units for part in self.parts)


@dataclass
class Run:
    """The one charge of a run."""

    target: int = 0
    charged: int = 0
    shortfall: int = 0
    refunded: int = 0
    captured: int = 0
    facts: bool = False
    spends: list[Part] = field(default_factory=list)


class Refused(Exception):
    """The request is in error; the code is its only argument."""


Answer = tuple[str, str, int, int, int]


class Reference:
    """The promises for one account."""

    def __init__(self, limit: int | None, policy: str, unknown: str) -> None:
        self.limit = limit
        self.policy = policy
        self.unknown = unknown
        self.boxes: list[Box] = []
        self.debt = 0
        self.debt_held = 0
        self.granted = self.refunded = self.captured = self.expired = 0
        self.claims: dict[str, Claim] = {}
        self.runs: dict[str, Run] = {}
        self.charges: dict[str, list[Part]] = {}
        self.rests: dict[str, int] = {}
        self.windows: dict[str, list[Any]] = {}
        """[asset, capacity, used, held, kind, how often it let work through]"""
        self.serial = 0
        self.now = 0

    # What it has

    @property
    def available(self) -> int:
        return sum(box.free for box in self.boxes) - self.debt - self.debt_held

    def held(self, kind: str) -> int:
        return sum(c.left for c in self.claims.values() if c.kind == kind and not c.end)

    def expire(self) -> None:
        for box in self.boxes:
            if box.until <= self.now:
                self.expired += box.free
                box.free = 0

    def expire_one(self, now: int, units: int) -> None:
        """The ledger swept a box; it stays expired, also when the clock then steps back."""
        swept = (box for box in self.boxes if box.until <= now and box.free == units)
        if box := next(swept, None):  # it had expired here with an operation before
            self.expired += box.free
            box.free = 0

    def take(self, units: int) -> list[Part]:
        """Up to `units`, box by box, then as debt up to the limit."""
        parts = []
        for box in sorted(self.boxes, key=lambda box: (box.priority, box.until, box.age)):
            part = min(box.free, units) if box.until > self.now else 0
            if part:
                box.free -= part
                units -= part
                parts.append(Part(box, part))
        room = units if self.limit is None else max(self.limit - self.debt - self.debt_held, 0)
        if min(units, room):
            parts.append(Part(None, min(units, room)))
        return parts

    @staticmethod
    def size(parts: list[Part]) -> int:
        return sum(part.units for part in parts)

    def back(self, parts: list[Part]) -> None:
        for part in parts:
            if part.box is not None:
                part.box.free += part.units

    def spend(self, parts: list[Part]) -> int:
        self.debt += sum(part.units for part in parts if part.box is None)
        self.captured += self.size(parts)
        return self.size(parts)

    def draw(self, claim: Claim, units: int) -> list[Part]:
        """Units out of a claim, in the order in which it took them, debt last."""
        drawn: list[Part] = []
        for part in sorted(claim.parts, key=lambda part: part.box is None):
            taken = min(part.units, units)
            if taken:
                part.units -= taken
                units -= taken
                drawn.append(Part(part.box, taken))
                if part.box is None:
                    self.debt_held -= taken
        claim.parts = [part for part in claim.parts if part.units]
        return drawn

    def count(self, limit_id: str, used: int, held: int) -> None:
        self.windows[limit_id][2] += used
        self.windows[limit_id][3] += held

    def room(self, limit_id: str) -> int:
        _, capacity, used, held = self.windows[limit_id][:4]
        return max(int(capacity) - int(used) - int(held), 0)

    def window(self, limit_id: str, asset: str, capacity: int, kind: str = "hard") -> None:
        self.windows[limit_id] = [asset, capacity, 0, 0, kind, 0]

    def refuses(self, limits: dict[str, int]) -> bool:
        """Whether a hard limit has no room; if not, the others are passed, and count it."""
        full = [one for one, units in limits.items() if max(units, 1) > self.room(one)]
        if any(self.windows[limit_id][4] == "hard" for limit_id in full):
            return True
        for limit_id in full:
            self.windows[limit_id][5] += 1
        return False

    # Requests

    def apply(self, request: Any, now: int, operation_id: str) -> Answer:
        """Apply a request; `operation_id` is the name that the ledger gave to it."""
        self.now = now
        self.expire()
        step = getattr(self, "on_" + type(request).__name__)
        status, code, moved, shortfall = step(request, operation_id)
        return status, code, moved, shortfall, self.available

    def on_GrantRequest(self, r: GrantRequest, _: str) -> tuple[str, str, int, int]:  # noqa: N802
        paid = min(self.debt, r.units)
        self.debt -= paid
        self.serial += 1
        self.boxes.append(Box(r.priority, r.expires_at or FOREVER, self.serial, r.units - paid))
        self.granted += r.units
        return "posted", "", r.units, 0

    def on_ChargeRequest(self, r: ChargeRequest, name: str) -> tuple[str, str, int, int]:  # noqa: N802
        if r.run_id and r.run_id in self.runs:
            raise Refused("run_already_charged")
        parts = self.take(r.units)
        if self.size(parts) < r.units and not r.is_after_the_fact:
            self.back(parts)
            return "declined", "credit_exhausted", 0, 0
        limits = {part.limit_id: part.units for part in r.limits}
        if not r.is_after_the_fact and self.refuses(limits):
            self.back(parts)
            return "declined", "budget_exceeded", 0, 0
        for limit_id, units in limits.items():
            self.count(limit_id, units, 0)
        moved = self.spend(parts)
        self.remember(name, parts, r.run_id)
        if r.run_id:
            run = self.runs[r.run_id]
            run.target, run.charged, run.shortfall = r.units, moved, r.units - moved
        return "posted", "", moved, r.units - moved

    def remember(self, name: str, parts: list[Part], run_id: str) -> None:
        copies: list[Part] = []
        for part in parts:  # one operation takes from a box once
            same = next((one for one in copies if one.box is part.box), None)
            if same is None:
                copies.append(Part(part.box, part.units))
            else:
                same.units += part.units
        if run_id:
            self.runs.setdefault(run_id, Run()).spends += copies
            self.charges[name] = copies
            self.rests[name] = -1
        else:
            self.charges[name] = copies
            self.rests[name] = self.size(copies)

    def on_RefundRequest(self, r: RefundRequest, _: str) -> tuple[str, str, int, int]:  # noqa: N802
        name = r.charge_id or ""
        run_id = r.run_id
        if name and self.rests[name] == -1:
            run_id = next(key for key, run in self.runs.items() if self.has(run, name))
        if run_id is not None:
            if run_id not in self.runs:
                raise Refused("unknown_charge")
            run = self.runs[run_id]
            rest, spends = run.charged - run.refunded, run.spends
        else:
            rest, spends = self.rests[name], self.charges[name]
        units = rest if r.units is None else r.units
        if units > rest or units <= 0:
            raise Refused("refund_too_large")
        if run_id is not None:
            self.runs[run_id].refunded += units
        else:
            self.rests[name] -= units
        self.give_back(spends, units)
        return "posted", "", units, 0

    def has(self, run: Run, name: str) -> bool:
        wanted = {id(part) for part in self.charges[name]}
        return any(id(part) in wanted for part in run.spends)

    def give_back(self, spends: list[Part], units: int) -> None:
        """Debt first, then the newest box; what nothing can take becomes a box of its own."""
        self.refunded += units
        owed = min(sum(part.units for part in spends if part.box is None), self.debt)
        debt = min(units, max(owed, 0))
        self.debt -= debt
        rest = units - debt
        returned = [Part(None, -debt)] if debt else []
        units_spent: list[Box] = []
        for part in spends:
            if part.box is not None and part.units > 0:
                units_spent += [part.box] * part.units
            elif part.box is not None:
                for _ in range(-part.units):
                    last = max(n for n, box in enumerate(units_spent) if box is part.box)
                    del units_spent[last]
        for box in reversed(units_spent):
            if rest:
                box.free += 1
                rest -= 1
                returned.append(Part(box, -1))
        if rest:
            self.serial += 1
            self.boxes.append(Box(0, FOREVER, self.serial, rest))
        spends += returned

    def on_HoldRequest(self, r: HoldRequest, name: str) -> tuple[str, str, int, int]:  # noqa: N802
        parts = self.take(r.units)
        limits = {part.limit_id: part.units for part in r.limits}
        code = ""
        if self.size(parts) < r.units:
            code = "credit_exhausted"
        elif self.refuses(limits):
            code = "budget_exceeded"
        if code:
            self.back(parts)
            return "declined", code, 0, 0
        for limit_id, units in limits.items():
            self.count(limit_id, 0, units)
        self.claim(name, "hold", parts, r.ttl_seconds, r.run_id, r.has_started, limits)
        return "posted", "started" if r.has_started else "", 0, 0

    def claim(
        self,
        name: str,
        kind: str,
        parts: list[Part],
        seconds: int,
        run: str = "",
        started: bool = True,
        limits: dict[str, int] | None = None,
    ) -> None:
        self.debt_held += sum(part.units for part in parts if part.box is None)
        due = self.now + seconds * SECOND
        self.claims[name] = Claim(kind, parts, run, started, due, dict(limits or {}))

    def on_LeaseRequest(self, r: LeaseRequest, name: str) -> tuple[str, str, int, int]:  # noqa: N802
        parts = self.take(r.units)
        if self.size(parts) < r.units:
            self.back(parts)
            return "declined", "credit_exhausted", 0, 0
        self.claim(name, "lease", parts, r.ttl_seconds)
        return "posted", "", 0, 0

    def opened(self, name: str, kind: str) -> Claim:
        claim = self.claims[name]
        if claim.end:
            ended = {"capture": "captured", "release": "released", "return": "returned"}
            ended |= {"hold_expiry": "expired", "resolve": "resolved"}
            raise Refused(f"{kind}_{ended[claim.end]}")
        return claim

    def finish(self, claim: Claim, end: str, used: dict[str, int]) -> None:
        """Give back what is left and close."""
        rest = self.draw(claim, claim.left)
        self.back(rest)
        claim.end = end
        claim.counted = {limit_id: used.get(limit_id, 0) for limit_id in claim.limits}
        for limit_id, held in claim.limits.items():
            self.count(limit_id, claim.counted[limit_id], -held)

    def usage(
        self, claim: Claim, units: int, request: CaptureRequest | None = None
    ) -> dict[str, int]:
        used = {}
        for limit_id, held in claim.limits.items():
            is_credit = self.windows[limit_id][0] == "CREDIT/6"
            used[limit_id] = units if is_credit else held if units else 0
            for asset, actual in request.actuals if request else ():
                if asset == self.windows[limit_id][0]:
                    used[limit_id] = actual
        said = request.limits if request else ()
        return used | {part.limit_id: part.units for part in said}

    def on_CaptureRequest(self, r: CaptureRequest, name: str) -> tuple[str, str, int, int]:  # noqa: N802
        claim = self.claims[r.hold_id]
        if claim.end:
            return self.late(r.hold_id, claim, r.units, claim.taken, "hold", r)
        if r.units > claim.left + claim.drawn and self.policy == "reject":
            return "declined", "capture_above_hold", 0, 0
        return self.end_by_capture(name, claim, r.units, "capture", "", r)

    def end_by_capture(
        self,
        name: str,
        claim: Claim,
        units: int,
        end: str,
        code: str,
        request: CaptureRequest | None = None,
    ) -> tuple[str, str, int, int]:
        wanted = units
        if claim.run:
            run = self.runs.setdefault(claim.run, Run())
            if run.facts:
                posted = run.charged + run.shortfall
                run.target = max(run.target, run.captured + units)
                wanted = min(units, max(run.target - posted, 0))
            else:
                run.target += units
            run.captured += units
        drawn = claim.drawn  # by the run's facts: it may have been other work's
        parts = self.draw(claim, min(wanted, claim.left))
        used = self.usage(claim, units, request)
        moved = self.spend(parts)
        self.finish(claim, end, used)
        above = wanted - moved
        if self.policy != "overage":
            above = min(above, drawn)
        if above > 0:
            more = self.take(above)
            moved += self.spend(more)
            parts = parts + more
        claim.taken = moved
        self.remember(name, parts, claim.run)
        if claim.run:
            run.charged += moved
            run.shortfall += wanted - moved
        return "posted", code, moved, wanted - moved

    def late(
        self,
        name: str,
        claim: Claim,
        units: int,
        taken: int,
        kind: str,
        request: CaptureRequest | None = None,
    ) -> tuple[str, str, int, int]:
        if claim.settled:
            raise Refused(f"{kind}_captured")
        if claim.end not in ("hold_expiry", "resolve"):
            self.opened(name, kind)
        claim.settled = True
        run = self.runs.setdefault(claim.run, Run()) if claim.run else None
        delta = units - taken
        if run is not None:
            run.captured += delta
            if run.facts:
                delta = max(run.captured - run.charged - run.shortfall, 0)
            run.target = max(run.target + delta, 0)
        for limit_id, used in self.usage(claim, units, request).items():
            self.count(limit_id, used - claim.counted[limit_id], 0)
        if delta >= 0:
            parts = self.take(delta)
            moved = self.spend(parts)
            self.remember(name + "/settle", parts, claim.run)
            if run is not None:
                run.charged += moved
                run.shortfall += delta - moved
            return "posted", "", moved, delta - moved
        if run is not None:
            rest = min(-delta, run.charged - run.refunded)
            run.charged -= rest
            spends = run.spends
        else:
            rest = min(-delta, self.rests.get(name + "/taken", 0))
            spends = self.charges.get(name + "/taken", [])
        if rest:
            self.give_back(spends, rest)
        return "posted", "given_back", rest, 0

    def on_ReleaseRequest(self, r: ReleaseRequest, _: str) -> tuple[str, str, int, int]:  # noqa: N802
        self.finish(self.opened(r.hold_id, "hold"), "release", {})
        return "posted", "", 0, 0

    def on_StartRequest(self, r: StartRequest, _: str) -> tuple[str, str, int, int]:  # noqa: N802
        claim = self.opened(r.hold_id, "hold")
        if not claim.started and claim.due <= self.now:
            raise Refused("hold_expired")
        claim.started = True
        return "posted", "", 0, 0

    def on_ExtendRequest(self, r: ExtendRequest, _: str) -> tuple[str, str, int, int]:  # noqa: N802
        kind = self.claims[r.hold_id].kind
        claim = self.opened(r.hold_id, kind)
        if kind == "lease" and r.epoch != claim.epoch:
            raise Refused("lease_fenced")
        if claim.unknown or claim.due <= self.now:
            raise Refused("lease_fenced" if kind == "lease" else "hold_expired")
        parts = self.take(r.units)
        if self.size(parts) < r.units:
            self.back(parts)
            return "declined", "credit_exhausted", 0, 0
        said = {"CREDIT/6": r.units} | dict(r.actuals)
        more = {one: said.get(self.windows[one][0], 0) for one in claim.limits}
        more = {limit_id: units for limit_id, units in more.items() if units}
        if self.refuses(more):
            self.back(parts)
            return "declined", "budget_exceeded", 0, 0
        for limit_id, units in more.items():
            self.count(limit_id, 0, units)
            claim.limits[limit_id] += units
        self.debt_held += sum(part.units for part in parts if part.box is None)
        for part in parts:
            same = next((one for one in claim.parts if one.box is part.box), None)
            if same is None:
                claim.parts.append(part)
            else:
                same.units += part.units
        if r.ttl_seconds:
            claim.due = max(claim.due, self.now + r.ttl_seconds * SECOND)
        return "posted", "", 0, 0

    def used_of(self, r: ReportRequest | ReturnRequest, name: str, end: str) -> Any:
        claim = self.claims[r.lease_id]
        if claim.end:
            return self.late(r.lease_id, claim, r.used_units, claim.taken, "lease")
        fits = r.epoch == claim.epoch or (claim.unknown and r.epoch == claim.epoch - 1)
        if not fits:
            raise Refused("lease_fenced")
        wanted = max(r.used_units - claim.drawn, 0)
        parts = self.draw(claim, min(wanted, claim.left))
        moved = self.spend(parts)
        claim.drawn = max(claim.drawn, r.used_units)
        if end:
            self.finish(claim, end, {})
        if moved < wanted and self.policy == "overage":
            more = self.take(wanted - moved)
            moved += self.spend(more)
            parts = parts + more
        self.remember(name, parts, "")
        return "posted", "", moved, wanted - moved

    def on_ReportRequest(self, r: ReportRequest, name: str) -> Any:  # noqa: N802
        return self.used_of(r, name, "")

    def on_ReturnRequest(self, r: ReturnRequest, name: str) -> Any:  # noqa: N802
        return self.used_of(r, name, "return")

    def on_DueRequest(self, r: DueRequest, name: str) -> tuple[str, str, int, int]:  # noqa: N802
        claim = self.claims[r.hold_id]
        if claim.unknown:
            return self.by_policy(r.hold_id, claim)
        if claim.started:
            claim.unknown = True
            claim.epoch += 1
            claim.due = self.now + GRACE
            return "posted", "", 0, 0
        self.finish(claim, "hold_expiry", {})
        return "posted", "", 0, 0

    def by_policy(self, name: str, claim: Claim) -> tuple[str, str, int, int]:
        run = self.runs.get(claim.run) if claim.run else None
        if run is not None and run.facts:
            self.settled_by_facts(claim)
            return "posted", "settled_by_facts", 0, 0
        units = claim.left if self.unknown == "capture" else 0
        if claim.kind == "lease":
            parts = self.draw(claim, units)
            self.finish(claim, "resolve", {})
            moved = self.spend(parts)
            claim.taken = claim.drawn + moved
            self.remember(name + "/taken", parts, "")
            return "posted", f"policy_{self.unknown}", moved, 0
        return self.end_by_capture(
            name + "/taken", claim, units, "resolve", f"policy_{self.unknown}"
        )

    def settled_by_facts(self, claim: Claim) -> None:
        used = {
            limit_id: claim.drawn if self.windows[limit_id][0] == "CREDIT/6" else held
            for limit_id, held in claim.limits.items()
        }
        self.finish(claim, "resolve", used)
        claim.taken = 0

    def converge(self, run_id: str, target: int, now: int) -> None:
        """Facts say what a run should have been charged."""
        self.now = now
        self.expire()
        run = self.runs.setdefault(run_id, Run())
        delta = target - run.charged - run.shortfall
        claims = [c for _, c in sorted(self.claims.items()) if c.run == run_id and not c.end]
        if delta > 0:
            self.charge_more(run, claims, delta)
        elif delta < 0:
            units = min(-delta, run.shortfall + run.charged - run.refunded)
            forgiven = min(run.shortfall, units)
            run.shortfall -= forgiven
            if units > forgiven:
                run.charged -= units - forgiven
                self.give_back(run.spends, units - forgiven)
        for claim in claims:
            if claim.unknown and target:
                self.settled_by_facts(claim)
        run.target, run.facts = target, True

    def charge_more(self, run: Run, claims: list[Claim], units: int) -> None:
        for claim in claims:
            part = min(units, claim.left)
            if part:
                parts = self.draw(claim, part)
                claim.drawn += part
                run.charged += self.spend(parts)
                run.spends += parts
                units -= part
        parts = self.take(units)
        moved = self.spend(parts)
        run.spends += parts
        run.charged += moved
        run.shortfall += units - moved
