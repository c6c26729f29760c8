"""The world: a clock that steps, and a store that fails before or after the commit.

A failure after the commit is the worst kind: the work is done and nobody knows. Messages
wait, come twice and overtake each other. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from tallystick.clock import FixedClock
from tallystick.errors import StoreUnavailable, TallystickError
from tallystick.ids import Uuid7Source
from tallystick.ledger import Ledger, Outcome, Request
from tallystick.ledger.intake import prepare
from tests.simulation.auditor import Auditor
from tests.simulation.reference import Reference
from tests.simulation.workload import SECOND, Workload

START = 1_790_000_000_000_000


class FaultyPool:
    """A pool whose connections sometimes break around the commit."""

    def __init__(self, pool: ConnectionPool, random: Random) -> None:
        self._pool = pool
        self._random = random
        self.chance = 0.0
        self.faults = 0

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        fault = ""
        if self._random.random() < self.chance:
            fault = self._random.choice(["before", "after"])
            self.faults += 1
        with self._pool.connection() as connection:
            yield connection
            if fault == "before":
                raise psycopg.OperationalError("injected before the commit")
        if fault == "after":
            raise psycopg.OperationalError("injected after the commit")


class World:
    """One account under a seed; `step` moves it, the auditor watches."""

    def __init__(self, pool: ConnectionPool, random: Random, name: str, chance: float) -> None:
        self.random = random
        self.clock = FixedClock(START)
        self.pool = pool
        self.faulty = FaultyPool(pool, random)
        ids = Uuid7Source(self.clock, Random(random.random()).getrandbits)
        self.ledger = Ledger(self.faulty, self.clock, ids)  # type: ignore[arg-type]
        limit = random.choice([0, 0, 5, 20, None])
        policy = random.choice(["cap", "overage", "reject"])
        unknown = random.choice(["capture", "release"])
        self.ledger.put_account(
            name,
            tenant_id=f"t-{name}",
            overage_limit_units=limit,
            capture_policy=policy,
            unknown_policy=unknown,
        )
        limits = {
            f"usd:{name}": ("USD/9", "hard"),
            f"credit:{name}": ("CREDIT/6", "hard"),
            f"soft:{name}": ("USD/9", random.choice(["soft", "shadow"])),
        }
        reference = Reference(limit, policy, unknown)
        for limit_id, (asset, kind) in limits.items():
            self.ledger.put_limit(limit_id, asset=asset, capacity=60, kind=kind)
            reference.window(limit_id, asset, 60, kind)
        self.workload = Workload(random, name, f"t-{name}", list(limits))
        self.auditor = Auditor(reference, name, f"t-{name}")
        self.waiting: list[Request] = []
        self.faulty.chance = chance

    def step(self) -> None:
        """One event: messages, facts, time."""
        kind = self.random.random()
        if kind < 0.12:
            self.clock.micros += self.random.choice([20, 60, 4000, -30]) * SECOND
        elif kind < 0.22:
            self._quietly(self.ledger.settle_due)
            self._replay()
        elif kind < 0.26:
            self._quietly(self.ledger.expire_lots)
        elif kind < 0.36:
            self._converge()
        else:
            self._send()

    def _send(self) -> None:
        """Some of the waiting requests go out together; some are lost and sent again."""
        for _ in range(self.random.randint(1, 4)):
            request = self.workload.request(self.clock.now())
            self.auditor.requests[prepare(request).key_hash or ""] = request
            self.waiting.append(request)
        self.random.shuffle(self.waiting)
        sent, self.waiting = self.waiting[:4], self.waiting[4:]
        if self.random.random() < 0.2:
            sent.append(self.random.choice(sent))  # a retry that overtakes its own answer
        try:
            answers = self.ledger.apply_batch(sent)
        except StoreUnavailable:
            self.waiting += sent  # nobody knows whether it was done: the same again, later
        else:
            for request, answer in zip(sent, answers, strict=True):
                self._hear(request, answer)
        self._replay()

    def _hear(self, request: Request, answer: Outcome | TallystickError) -> None:
        if isinstance(answer, Outcome):
            self.auditor.heard(request, answer)
            self.workload.learn(answer)
            if self.random.random() < 0.2:
                self.waiting.append(request)  # its answer is lost on the way back
        else:
            assert answer.http_status < 500, answer

    def _converge(self) -> None:
        target = self.workload.target()
        while not self._quietly(lambda: self.ledger.converge_run_charges([target])):
            pass
        with self.pool.connection() as connection:
            self.auditor.replay(connection, {target.run_id: target})

    def _replay(self) -> None:
        with self.pool.connection() as connection:
            self.auditor.replay(connection)

    def _quietly(self, work: Any) -> bool:
        try:
            work()
        except StoreUnavailable:
            return False
        return True

    def finish(self) -> None:
        """Let everything arrive, then let time run out: no hold may be left over."""
        self.faulty.chance = 0.0
        while self.waiting:
            self._send_rest()
        for _ in range(4):
            self.clock.micros += 30 * 24 * 3600 * SECOND
            self.ledger.settle_due()
            self._replay()
        self.check()
        balance = self.ledger.balance(self.auditor.account_id)
        assert (balance.held, balance.leased) == (0, 0), "an orphan hold"

    def _send_rest(self) -> None:
        sent, self.waiting = self.waiting[:4], self.waiting[4:]
        for request, answer in zip(sent, self.ledger.apply_batch(sent), strict=True):
            if isinstance(answer, Outcome):
                self.auditor.heard(request, answer)
        self._replay()

    def check(self) -> None:
        """Every figure agrees with the reference."""
        chance, self.faulty.chance = self.faulty.chance, 0.0
        self.auditor.balances(self.ledger, self.clock.now())
        self.faulty.chance = chance
