"""The authorizer on real stores: thresholds, guards, edits by others, whose account it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from itertools import count
from typing import Any

import pytest

from tallystick.bounds import LIMITS_PER_HOLD_MAX
from tallystick.clock import DAY, SECOND, FixedClock
from tallystick.enforcement.authorization import Actual, Advice, Ask, Authorizer
from tallystick.enforcement.budgets import EDIT_SECONDS_MAX, Budgets, BudgetTerms, Threshold
from tallystick.enforcement.budgets.enforcing import Enforcing
from tallystick.errors import Blocked, Conflict, NotFound, TooManyRequests
from tallystick.ids import Uuid7Source
from tallystick.ledger import GrantRequest, Ledger
from tallystick.ledger.committer import LANES, Committer
from tallystick.plumbing.postgres import BY_INDEX, make_async_pool, open_pool

START = 20_000 * DAY
_serial = count()


class Scene:
    """An authorizer whose clocks stand still; the budgets are edited by another process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock, self.seconds = FixedClock(START), 100.0
        self.tenant = f"a{next(_serial)}"
        self.pool = open_pool(url, connections_max=3)
        self.budgets = Budgets(self.pool, self.clock)
        self.ledger = Ledger(self.pool, self.clock, Uuid7Source(self.clock))
        self.ledger.put_account(self.tenant, tenant_id=self.tenant)
        self.ledger.apply(GrantRequest(self.tenant, 10**9, idempotency_key="g"))
        self.authorizer: Authorizer
        self.enforcing: Enforcing

    def set(self, amount: int = 100, **terms: Any) -> None:
        more = {"asset": "requests", "window": "day", **terms}
        self.budgets.put(self.tenant, "b", BudgetTerms(amount=amount, **more), changed_by="test")

    def ask(self, **more: Any) -> Ask:
        key = f"k{next(_serial)}"
        return Ask(
            **{"tenant_id": "", **more},
            account_id=self.tenant,
            credit_units=1,
            idempotency_key=key,
        )

    async def status(self, **more: Any) -> str:
        return (await self.authorizer.hold(self.ask(**more))).status

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def inside() -> None:
            lanes = make_async_pool(self.url, connections=LANES + 1, settings=BY_INDEX)
            committer = Committer(self.ledger, lanes)
            await committer.open()
            enforcing = Enforcing(self.budgets, self.clock, lambda: self.seconds)
            self.enforcing = enforcing
            self.authorizer = Authorizer(committer, enforcing)
            await work()
            await committer.close()

        try:
            asyncio.run(inside())
        finally:
            self.pool.close()


@pytest.fixture
def scene(postgres_url: str) -> Scene:
    return Scene(postgres_url)


def test_an_edit_of_another_process_holds_within_the_bound(scene: Scene) -> None:
    async def work() -> None:
        assert await scene.status() == "posted"
        scene.set(0)
        scene.seconds += EDIT_SECONDS_MAX
        assert await scene.status() == "declined"
        scene.set(1)  # the window's capacity is changed by the edit itself: no bound to wait for
        assert await scene.status() == "posted"
        assert await scene.status() == "declined"

    scene.run(work)


def test_a_throttle_asks_to_wait_and_a_downgrade_is_advice(scene: Scene) -> None:
    thresholds = (Threshold(Decimal("0.5"), "downgrade"), Threshold(Decimal("0.8"), "throttle"))
    scene.set(10, thresholds=thresholds)

    async def work() -> None:
        assert await scene.authorizer.advice(scene.ask()) == Advice()
        for _ in range(8):
            assert await scene.status() == "posted"
            scene.seconds += 1
        advice = await scene.authorizer.advice(scene.ask())
        assert advice == Advice(True, throttle_seconds=DAY // 2 // SECOND, decided_by="budget:b")
        with pytest.raises(TooManyRequests) as caught:
            await scene.status()
        assert caught.value.retry_after_seconds == DAY // 2 // SECOND
        assert caught.value.decided_by == "budget:b"
        scene.clock.micros += DAY // 2
        assert await scene.status() == "posted"

    scene.run(work)


def test_the_budget_that_says_cheaper_is_named(scene: Scene) -> None:
    """Not the one that only asks to wait."""
    for budget_id, action in (("a-slow", "throttle"), ("z-cheap", "downgrade")):
        terms = BudgetTerms(
            asset="requests",
            amount=10,
            window="day",
            thresholds=(Threshold(Decimal("0.1"), action),),
        )
        scene.budgets.put(scene.tenant, budget_id, terms, changed_by="test")

    async def work() -> None:
        assert await scene.status() == "posted"
        scene.seconds += 1
        advice = await scene.authorizer.advice(scene.ask())
        assert advice.downgrade and advice.decided_by == "budget:z-cheap"

    scene.run(work)


def test_a_guard_forbids_before_anything_is_taken(scene: Scene) -> None:
    class Closed:
        async def check(self, ask: Ask) -> None:
            if ask.attribution.get("feature") == "chat":
                raise Blocked("chat is switched off", decided_by="mitigation:1")

    async def work() -> None:
        scene.authorizer.guards.append(Closed())
        with pytest.raises(Blocked):
            await scene.status(attribution={"feature": "chat"})
        assert await scene.status(attribution={"feature": "search"}) == "posted"
        whole = [scene.ask(attribution={"feature": "chat"}), scene.ask()]
        answers = await scene.authorizer.apply_batch(whole, all_or_nothing=False, tenant_id="")
        assert isinstance(answers[0], Blocked)

    scene.run(work)


def test_a_guard_knows_whose_account_an_operator_names(scene: Scene) -> None:
    other = f"{scene.tenant}-second"
    scene.ledger.put_account(other, tenant_id=scene.tenant)

    class Off:
        async def check(self, ask: Ask) -> None:
            if ask.tenant_id == scene.tenant:
                raise Blocked("the tenant is switched off", decided_by="mitigation:1")

    async def work() -> None:
        scene.authorizer.guards.append(Off())
        ask = Ask(account_id=other, credit_units=1, tenant_id="", idempotency_key="o")
        with pytest.raises(Blocked):
            await scene.authorizer.hold(ask)

    scene.run(work)


def test_an_account_of_another_tenant_is_not_there(scene: Scene) -> None:
    async def work() -> None:
        with pytest.raises(NotFound):
            await scene.status(tenant_id="somebody-else")
        assert await scene.status(tenant_id=scene.tenant) == "posted"

    scene.run(work)


def test_one_decision_is_made_over_so_many_limits_and_no_more(scene: Scene) -> None:
    def put(first: int, end: int) -> None:
        for number in range(first, end):
            terms = BudgetTerms(asset="requests", amount=1000, window="day")
            scene.budgets.put(scene.tenant, f"b{number}", terms, changed_by="test")

    async def work() -> None:
        put(0, LIMITS_PER_HOLD_MAX)
        assert await scene.status() == "posted"
        put(LIMITS_PER_HOLD_MAX, LIMITS_PER_HOLD_MAX + 1)
        scene.seconds += EDIT_SECONDS_MAX
        with pytest.raises(Conflict) as caught:
            await scene.status()
        assert caught.value.code == "too_many_budgets"

    scene.run(work)


def test_a_window_that_is_gone_is_no_advice_and_no_failure(scene: Scene) -> None:
    scene.set(10, thresholds=(Threshold(Decimal("0.5"), "downgrade"),))

    async def work() -> None:
        (part,) = await scene.enforcing.match(scene.tenant, "", {})
        gone = part._replace(limit_id=part.limit_id + "-gone")
        assert len(await scene.enforcing.thresholds([part, gone], {"requests": 1})) == 1

    scene.run(work)


def test_one_hold_counts_every_asset_and_its_capture_says_the_actual(scene: Scene) -> None:
    for asset in ("USD", "CREDIT", "tokens", "requests"):
        terms = BudgetTerms(asset=asset, amount=1000, window="day", scope={"user": "*"})
        scene.budgets.put(scene.tenant, asset, terms, changed_by="test")

    async def work() -> None:
        ask = scene.ask(usd_units=70, tokens=500, attribution={"user_id": "u"})
        held = await scene.authorizer.hold(ask)
        more = Actual(credit_units=2, usd_units=30, tokens=100)
        await scene.authorizer.extend(held.hold_id, more, idempotency_key="e", tenant_id="")
        assert counted() == [(0, 100), (0, 3), (0, 600), (0, 1)]
        actual = Actual(credit_units=2, usd_units=40)
        await scene.authorizer.capture(held.hold_id, actual, idempotency_key="c", tenant_id="")
        assert counted() == [(40, 0), (2, 0), (600, 0), (1, 0)]

    def counted() -> list[tuple[int, int]]:
        found = []
        for asset in ("USD", "CREDIT", "tokens", "requests"):
            (window,) = scene.budgets.windows(scene.tenant, asset)
            assert window.each == {"user": "u"}
            found.append((window.used, window.held))
        return found

    scene.run(work)
