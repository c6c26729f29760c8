"""The workload: requests of every kind, valid and not, chosen by a seed."""

from __future__ import annotations

from random import Random

from tallystick.ledger import (
    CaptureRequest,
    ChargeRequest,
    ExtendRequest,
    GrantRequest,
    HoldRequest,
    LeaseRequest,
    LimitPart,
    Outcome,
    RefundRequest,
    ReleaseRequest,
    ReportRequest,
    Request,
    ReturnRequest,
    RunTarget,
    StartRequest,
)

SECOND = 1_000_000
RUNS = ("R1", "R2", "R3")


class Workload:
    """Makes requests for one account; learns the names of what was made."""

    def __init__(self, random: Random, account_id: str, tenant_id: str, limits: list[str]) -> None:
        self.random = random
        self.account_id = account_id
        self.tenant_id = tenant_id
        self.limits = limits
        self.holds: list[str] = []
        self.leases: list[str] = []
        self.charges: list[str] = []
        self.serial = 0

    def learn(self, outcome: Outcome) -> None:
        """Remember what later requests can name."""
        if outcome.status != "posted":
            return
        if outcome.kind == "hold" and outcome.hold_id not in self.holds:
            self.holds.append(outcome.hold_id)
        elif outcome.kind == "lease" and outcome.hold_id not in self.leases:
            self.leases.append(outcome.hold_id)
        elif outcome.kind in ("charge", "capture", "report", "return") and outcome.moved:
            self.charges.append(outcome.operation_id)

    def target(self) -> RunTarget:
        """What facts say of a run."""
        return RunTarget(self.tenant_id, self.random.choice(RUNS), self.random.randint(0, 20))

    def request(self, now: int) -> Request:
        """Some request."""
        makers = [self.grant, self.charge, self.hold, self.hold, self.lease, self.refund]
        if self.holds:
            makers += [self.capture] * 4 + [self.release, self.start, self.extend]
        if self.leases:
            makers += [self.report, self.report, self.give_back]
        self.serial += 1
        return self.random.choice(makers)(now)

    @property
    def key(self) -> str:
        return f"k{self.serial}"

    def grant(self, now: int) -> Request:
        until = self.random.choice([None, now + self.random.randint(1, 400) * SECOND])
        return GrantRequest(
            self.account_id,
            self.random.randint(1, 30),
            priority=self.random.randint(0, 2),
            expires_at=until,
            idempotency_key=self.key,
        )

    def charge(self, now: int) -> Request:
        return ChargeRequest(
            self.account_id,
            self.random.randint(1, 12),
            run_id=self.random.choice(["", "", *RUNS]),
            is_after_the_fact=self.random.random() < 0.3,
            limits=tuple(
                LimitPart(limit, self.random.randint(0, 5))
                for limit in self.limits
                if self.random.random() < 0.2
            ),
            idempotency_key=self.key,
        )

    def hold(self, now: int) -> Request:
        limits = tuple(
            LimitPart(limit, self.random.randint(0, 9))
            for limit in self.limits
            if self.random.random() < 0.4
        )
        return HoldRequest(
            self.account_id,
            self.random.randint(1, 12),
            ttl_seconds=self.random.randint(1, 200),
            run_id=self.random.choice(["", "", *RUNS]),
            has_started=self.random.random() < 0.4,
            limits=limits,
            idempotency_key=self.key,
        )

    def lease(self, now: int) -> Request:
        units = self.random.randint(1, 12)
        return LeaseRequest(self.account_id, units, 60, idempotency_key=self.key)

    def refund(self, now: int) -> Request:
        units = self.random.choice([None, 1, 3])
        if self.charges and self.random.random() < 0.7:
            charge_id = self.random.choice(self.charges)
            return RefundRequest(charge_id=charge_id, units=units, idempotency_key=self.key)
        run_id = self.random.choice(RUNS)
        return RefundRequest(
            tenant_id=self.tenant_id, run_id=run_id, units=units, idempotency_key=self.key
        )

    def capture(self, now: int) -> Request:
        hold_id = self.random.choice(self.holds)
        actuals = (("USD/9", self.random.randint(0, 12)),) if self.random.random() < 0.5 else ()
        return CaptureRequest(
            hold_id, self.random.randint(0, 15), actuals=actuals, idempotency_key=self.key
        )

    def release(self, now: int) -> Request:
        return ReleaseRequest(self.random.choice(self.holds), idempotency_key=self.key)

    def start(self, now: int) -> Request:
        return StartRequest(self.random.choice(self.holds), idempotency_key=self.key)

    def extend(self, now: int) -> Request:
        names = self.holds + self.leases
        units, seconds = self.random.choice([(0, 60), (3, 0), (2, 90)])
        epoch = self.random.choice([1, 1, 2])
        name = self.random.choice(names)
        actuals = (("USD/9", self.random.randint(0, 6)),) if self.random.random() < 0.4 else ()
        return ExtendRequest(name, seconds, units, epoch, actuals=actuals, idempotency_key=self.key)

    def report(self, now: int) -> Request:
        epoch = self.random.choice([1, 1, 1, 2])
        used = self.random.randint(0, 20)
        name = self.random.choice(self.leases)
        return ReportRequest(name, used, epoch, idempotency_key=self.key)

    def give_back(self, now: int) -> Request:
        used = self.random.randint(0, 20)
        return ReturnRequest(self.random.choice(self.leases), used, 1, idempotency_key=self.key)
