"""The money path of one model call, on real stores."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import pytest

from tallystick.access import Principal
from tallystick.clock import HOUR
from tallystick.enforcement.authorization import Authorizer
from tallystick.enforcement.calls import CallAsk, CallRefused, Calls, CallSettings, Usage
from tallystick.enforcement.calls.budgets import RunBudgets, limit_id_of
from tallystick.enforcement.calls.facts import CallFacts
from tallystick.enforcement.calls.prices import CallPrices
from tallystick.enforcement.calls.store import BUDGETS_PER_READ, CallStore
from tallystick.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from tallystick.ledger import GrantRequest
from tallystick.ledger.committer import LANES, Committer
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.plumbing.postgres import BY_INDEX, make_async_pool, open_pool, transaction
from tests.world import World

T = TypeVar("T")
ACME = Principal("key:k1", frozenset(), frozenset({"*"}), tenant_id="acme", key_id="k1")


class Scene:
    """Calls over a world: each step in an event loop of its own."""

    def __init__(self, world: World, url: str, clickhouse: ClickHouse, **settings: Any) -> None:
        self.world = world
        self.clickhouse = clickhouse
        self.url = url
        self.settings = CallSettings(**settings)

    def run(self, step: Callable[[Calls], Awaitable[T]]) -> T:
        async def inside() -> T:
            pool = make_async_pool(self.url, connections=LANES + 1, settings=BY_INDEX)
            committer = Committer(self.world.ledger, pool)
            await committer.open()
            try:
                calls = self.calls(committer)
                try:
                    return await step(calls)
                finally:
                    await calls.close()
            finally:
                await committer.close()

        return asyncio.run(inside())

    def calls(self, committer: Committer) -> Calls:
        world = self.world
        return Calls(
            Authorizer(committer),
            world.ledger,
            world.door,
            world.catalog,
            world.clock,
            world.pool,
            self.clickhouse,
            settings=self.settings,
        )


@pytest.fixture
def scene(world: World, postgres_url: str, clickhouse: ClickHouse) -> Scene:
    world.ledger.put_account("acme", tenant_id="acme")
    world.ledger.apply(
        GrantRequest(account_id="acme", units=1_000_000_000, idempotency_key="first")
    )
    return Scene(world, postgres_url, clickhouse)


def ask(name: str, **more: Any) -> CallAsk:
    return CallAsk(
        **{
            "principal": ACME,
            "provider": "openai",
            "model": "gpt-4o",
            "tokens_input": 1000,
            "tokens_output_max": 500,
            "request_id": f"req-{name}",
            "idempotency_key": name,
            **more,
        }
    )


def test_a_call_is_held_charged_and_counted_once(scene: Scene) -> None:
    usage = Usage(tokens_input=900, tokens_output=100, tokens_cache_read=400)

    async def step(calls: Calls) -> Any:
        permit = await calls.authorize(ask("one", attribution={"feature": "chat", "user": "u1"}))
        held = scene.world.ledger.balance("acme").held
        first = await calls.settle(permit, usage, latency_ms=12.5)
        again = await calls.settle(permit, usage, latency_ms=12.5)
        return permit, held, first, again

    permit, held, first, again = scene.run(step)
    assert held == permit.credit_units > 0
    assert first == again
    # 500 x 2.5 + 400 x 1.25 + 100 x 10 USD a million; 120 credits a USD
    assert first.cost_usd_units == 2_750_000
    assert first.credit_units == first.charged_units == 330_000
    scene.world.settle()
    totals = scene.world.totals("acme")
    assert totals["calls"] == 1
    balance = scene.world.ledger.balance("acme")
    assert balance.held == 0
    assert balance.captured - balance.refunded == 330_000
    charge = scene.world.ledger.load_run_charge("acme", "req-one")
    assert charge is not None
    assert (charge.target, charge.charged, charge.shortfall) == (330_000, 330_000, 0)


def test_the_same_ask_gets_the_same_answer_and_another_is_a_conflict(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        first = await calls.authorize(ask("two"))
        calls.prices.outputs.saw("acme", "gpt-4o", 100_000)  # estimates may change meanwhile
        again = await calls.authorize(ask("two"))
        with pytest.raises(Conflict):
            await calls.authorize(ask("two", tokens_input=1001))
        await calls.cancel(first, reason="not made")
        return first, again

    first, again = scene.run(step)
    assert first == again
    assert scene.world.ledger.balance("acme").held == 0


def test_a_guess_that_changed_does_not_change_an_answer(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        first = await calls.authorize(ask("guess", tokens_output_max=None))
        for _ in range(40):
            calls.prices.outputs.saw("acme", "gpt-4o", 10)
        again = await calls.authorize(ask("guess", tokens_output_max=None))
        fresh = await calls.authorize(ask("guess-2", tokens_output_max=None))
        for permit in (first, fresh):
            await calls.cancel(permit, reason="")
        return first, again, fresh

    first, again, fresh = scene.run(step)
    assert first == again
    assert fresh.tokens_output < first.tokens_output


def test_without_a_maximum_every_answer_is_held_for_as_long_as_usual(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        one = await calls.authorize(ask("alone", tokens_output_max=None))
        many = await calls.authorize(ask("many", tokens_output_max=None, answers=16))
        stored = await calls.permit(many.hold_id, ACME)
        with pytest.raises(InvalidInput):
            await calls.authorize(ask("too-many", tokens_output_max=None, answers=1_001))
        for _ in range(40):  # it learns how long each is, not all together
            calls.prices.saw(many, Usage(tokens_output=16 * 40))
        bound = calls.prices.outputs.bound("acme", "gpt-4o", None)
        for permit in (one, many):
            await calls.cancel(permit, reason="not made")
        return one, many, stored, bound

    one, many, stored, bound = scene.run(step)
    assert many.tokens_output == 16 * one.tokens_output
    assert many.credit_units > 15 * one.credit_units
    assert stored.ask.answers == 16
    assert bound == 60


def test_a_tier_is_held_for_at_no_less_than_the_standard_price(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        permits = {}
        for tier in ("", "flex", "priority"):
            asked = ask(f"tier-{tier}", model="gpt-5", service_tier=tier)
            permits[tier] = await calls.authorize(asked)
        usage = Usage(tokens_input=900, tokens_output=100, service_tier="default")
        receipt = await calls.settle(permits["flex"], usage)
        with pytest.raises(InvalidInput):
            await calls.settle(permits["priority"], Usage(service_tier="t" * 129))
        for tier in ("", "priority"):
            await calls.cancel(permits[tier], reason="not made")
        return {tier: permit.usd_units for tier, permit in permits.items()}, receipt

    held, receipt = scene.run(step)
    assert held["flex"] == held[""] and held["priority"] == 2 * held[""]
    assert receipt.cost_usd_units == 2_125_000  # 900 x 1.25 + 100 x 10 USD a million


def test_refusals_say_what_decided(scene: Scene) -> None:
    limited = Principal("key:k2", frozenset(), frozenset(), tenant_id="acme", models=("gpt-4o",))

    async def step(calls: Calls) -> Any:
        found: list[tuple[int, str, str]] = []
        for changes in (
            {"tokens_input": 900_000_000},
            {"model": "no-such-model", "provider": "nobody"},
            {"principal": limited, "model": "gpt-4o-mini"},
        ):
            with pytest.raises(CallRefused) as refused:
                await calls.authorize(ask(f"refused-{len(found)}", **changes))
            found.append((refused.value.http_status, refused.value.code, refused.value.decided_by))
        with pytest.raises(NotFound):
            await calls.authorize(ask("foreign", account_id="another"))
        return found

    scene.world.ledger.put_account("another", tenant_id="other")
    found = scene.run(step)
    assert found == [
        (402, "credit_exhausted", "account:acme"),
        (402, "unpriced_model", "policy:unpriced_model"),
        (402, "model_not_allowed", "key:key:k2"),
    ]


def test_policy_may_allow_a_model_without_a_price(
    world: World, postgres_url: str, clickhouse: ClickHouse
) -> None:
    scene = Scene(world, postgres_url, clickhouse, allows_unpriced=True)

    async def step(calls: Calls) -> Any:
        permit = await calls.authorize(ask("free", model="no-such-model", provider="nobody"))
        return await calls.settle(permit, Usage(tokens_input=10, tokens_output=5))

    receipt = scene.run(step)
    assert (receipt.cost_quality, receipt.credit_units) == ("unpriced", 0)


def test_an_answer_beyond_its_hold_tops_up_or_is_covered(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        permit = await calls.authorize(ask("long", tokens_output_max=10))
        more = await calls.top_up(permit, tokens_output=1000)
        rebuilt = await calls.permit(permit.hold_id, ACME)
        longer = await calls.settle(more, Usage(tokens_input=1000, tokens_output=5000))
        return permit, more, rebuilt, longer

    permit, more, rebuilt, longer = scene.run(step)
    assert more.credit_units > permit.credit_units
    names = ("credit_units", "usd_units", "tokens", "tokens_output")
    assert [getattr(rebuilt, name) for name in names] == [getattr(more, name) for name in names]
    assert longer.charged_units == longer.credit_units > more.credit_units
    assert longer.shortfall_units == 0


def test_a_run_budget_in_credits_does_not_make_a_dear_answer_free(scene: Scene) -> None:
    """What a call costs beyond its hold has been spent: the account pays it all the same."""

    async def step(calls: Calls) -> Any:
        asset = "CREDIT/6"
        await calls.run_budgets.put("acme", "dear", asset=asset, amount_units=1_000_000)
        permit = await calls.authorize(ask("dear", tokens_output_max=100, run_id="dear"))
        assert permit.credit_units < 1_000_000
        receipt = await calls.settle(permit, Usage(tokens_input=1000, tokens_output=5000))
        return receipt, await calls.run_budgets.load("acme", "dear")

    receipt, budget = scene.run(step)
    assert receipt.credit_units > 1_000_000
    assert (receipt.charged_units, receipt.shortfall_units) == (receipt.credit_units, 0)
    assert budget.remaining_units == 0
    (limit,) = scene.world.ledger.load_limits([budget.limit_id])
    assert (limit.used, limit.held) == (receipt.credit_units, 0)


def test_any_process_settles_by_the_hold_alone(scene: Scene) -> None:
    async def first(calls: Calls) -> Any:
        return await calls.authorize(ask("moved", attribution={"team": "search"}))

    permit = scene.run(first)

    async def second(calls: Calls) -> Any:
        rebuilt = await calls.permit(permit.hold_id, ACME)
        with pytest.raises(NotFound):
            await calls.permit(permit.hold_id, Principal("x", frozenset(), frozenset(), "other"))
        return rebuilt, await calls.settle(rebuilt, Usage(tokens_input=7, tokens_output=3))

    rebuilt, receipt = scene.run(second)
    assert rebuilt.ask.attribution == {"team": "search", "key": "k1"}
    assert receipt.charged_units == receipt.credit_units
    with pytest.raises(Conflict):
        scene.run(lambda calls: calls.settle(rebuilt, Usage(tokens_input=8, tokens_output=3)))


def test_children_draw_from_the_budget_of_their_root_run(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        await calls.run_budgets.put("acme", "root", asset="USD/9", amount_units=20_000_000)
        made = {"root_run_id": "root", "parent_run_id": "root"}
        permit = await calls.authorize(ask("child-1", run_id="c1", **made))
        with pytest.raises(CallRefused) as refused:
            await calls.authorize(ask("child-2", run_id="c2", tokens_output_max=2000, **made))
        await calls.settle(permit, Usage(tokens_input=1000, tokens_output=100))
        return refused.value, await calls.run_budgets.load("acme", "root")

    refused, budget = scene.run(step)
    assert (refused.code, refused.decided_by) == ("budget_exceeded", "limit:run:acme/root")
    assert budget.remaining_units == 20_000_000 - 3_500_000


def test_tools_are_charged_with_their_call(scene: Scene) -> None:
    usage = Usage(tokens_input=10, tokens_output=5, tools={"web_search": 2})

    async def step(calls: Calls) -> Any:
        permit = await calls.authorize(ask("tools", tools={"web_search": 3}))
        return permit, await calls.settle(permit, usage)

    permit, receipt = scene.run(step)
    assert permit.credit_units >= receipt.credit_units == 100_000 + 9_000
    scene.world.settle()
    charge = scene.world.ledger.load_run_charge("acme", "req-tools")
    assert charge is not None
    assert charge.target == charge.charged == receipt.credit_units


def test_many_calls_of_one_run_are_one_charge(scene: Scene) -> None:
    """Captures, events and the charger, in between and after: the run's charge is the sum."""

    async def step(calls: Calls) -> Any:
        total = 0
        for number in range(12):
            made = ask(f"many-{number}", run_id="many")
            permits = [await calls.authorize(made)]
            usage = Usage(tokens_input=1000 - number, tokens_output=37 * number)
            receipt = await calls.settle(permits[0], usage)
            total += receipt.credit_units
            if number % 4 == 1:
                await asyncio.to_thread(scene.world.settle)
        return total

    total = scene.run(step)
    scene.world.settle()
    charge = scene.world.ledger.load_run_charge("acme", "many")
    assert charge is not None
    assert (charge.target, charge.charged, charge.shortfall) == (total, total, 0)
    assert scene.world.ledger.balance("acme").held == 0
    assert scene.world.ledger.verify() == []


def test_captures_that_nobody_waits_for_are_made(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        permits = [await calls.authorize(ask(f"later-{number}")) for number in range(5)]
        usage = Usage(tokens_input=900, tokens_output=100)
        return [await calls.settle(permit, usage, is_waiting=False) for permit in permits]

    receipts = scene.run(step)
    assert {(one.is_posted, one.charged_units) for one in receipts} == {(False, 390_000)}
    assert scene.world.ledger.balance("acme").held == 0
    for number in range(5):
        charge = scene.world.ledger.load_run_charge("acme", f"req-later-{number}")
        assert charge is not None and charge.charged == 390_000


def test_insights_tell_how_caching_pays_and_how_much_is_held(scene: Scene) -> None:
    claude = {"provider": "anthropic", "model": "claude-sonnet-4-5", "has_cache_write": True}
    write = Usage(tokens_input=10_000, tokens_output=10, tokens_cache_write_5m=9_000)
    read = Usage(tokens_input=10_000, tokens_output=10, tokens_cache_read=9_000)

    async def step(calls: Calls) -> Any:
        for number, usage in enumerate((write, read, read)):
            made = ask(f"cache-{number}", tokens_input=12_000, attribution={"feature": "f"})
            permit = await calls.authorize(msgspec.structs.replace(made, **claude))
            await calls.settle(permit, usage)
        await asyncio.to_thread(scene.world.settle)
        now = scene.world.clock.now()
        by_key = await calls.insights.cache("acme", now - HOUR, now + HOUR, "key")
        by_feature = await calls.insights.cache("acme", now - HOUR, now + HOUR, "feature")
        return by_key, by_feature, await calls.insights.holds("acme")

    by_key, by_feature, holds = scene.run(step)
    (row,) = [one for one in by_feature if one["model"] == "claude-sonnet-4-5"]
    assert (row["feature"], row["calls"], row["calls_that_read"]) == ("f", 3, 2)
    assert row["hit_rate"] == pytest.approx(18_000 / 30_000)
    # 3 USD a million, written 3.75, read 0.3: 18,000 x 2.7 saved, 9,000 x 0.75 paid for it
    assert (row["saved_usd"], row["extra_paid_for_writes_usd"]) == ("0.0486", "0.00675")
    assert row["break_even_reads"] == pytest.approx(0.75 / 2.7)
    assert [one["key"] for one in by_key if one["model"] == "claude-sonnet-4-5"] == ["k1"]
    (held,) = [one for one in holds if one["model"] == "claude-sonnet-4-5"]
    assert held["calls"] == 3 and held["hold_ratio"] > 1
    assert held["calls_above_hold"] == held["calls_not_paid_in_full"] == 0


@pytest.mark.parametrize("policy", ["cap", "reject", "overage"])
def test_what_an_account_cannot_pay_is_on_record_under_every_policy(
    scene: Scene, policy: str
) -> None:
    """The answer grew beyond its hold and the credit is gone: the work is never forgotten."""
    name = f"poor-{policy}"
    scene.world.ledger.put_account(name, tenant_id=name, capture_policy=policy)
    scene.world.ledger.apply(GrantRequest(account_id=name, units=500_000, idempotency_key="g"))
    poor = Principal("key:p", frozenset(), frozenset(), tenant_id=name)

    async def step(calls: Calls) -> Any:
        permit = await calls.authorize(ask(name, principal=poor, tokens_output_max=10))
        return await calls.settle(permit, Usage(tokens_input=1000, tokens_output=1000))

    receipt = scene.run(step)
    assert receipt.credit_units == 1_500_000
    scene.world.settle()
    charge = scene.world.ledger.load_run_charge(name, f"req-{name}")
    assert charge is not None
    assert charge.target == charge.charged + charge.shortfall == 1_500_000
    assert scene.world.ledger.balance(name).held == 0
    assert scene.world.ledger.verify() == []


def test_a_run_budget_is_not_forgotten_for_others(scene: Scene) -> None:
    """However many budgets another tenant makes, one that does not fit is asked for."""
    pool = open_pool(scene.url, connections_max=2)
    budgets = RunBudgets(CallStore(pool), scene.world.ledger, scene.world.clock, known_max=3)

    async def step() -> None:
        await budgets.put("acme", "kept", asset="CREDIT/6", amount_units=1)
        for number in range(5):
            await budgets.put("crowd", f"r{number}", asset="CREDIT/6", amount_units=2)
        found = await budgets.find("acme", "kept")
        assert found is not None and found.limit_id == limit_id_of("acme", "kept")
        assert await budgets.find("acme", "none") is None
        assert [await budgets.find("crowd", f"r{number}") is None for number in range(6)] == [
            *[False] * 5,
            True,
        ]
        pool.close()
        assert await budgets.find("other", "r1") is None  # of whom all is known: nobody is asked
        with pytest.raises(StoreUnavailable):  # never taken for absent
            await budgets.find("acme", "another")

    try:
        asyncio.run(step())
    finally:
        pool.close()


def test_budgets_that_are_made_at_once_are_all_learned(scene: Scene) -> None:
    """More of one moment than are read at a time: what comes after them is read too."""
    store = CallStore(scene.world.pool)
    budgets = RunBudgets(store, scene.world.ledger, scene.world.clock)
    count = BUDGETS_PER_READ + 100
    with transaction(scene.world.pool) as connection:
        connection.execute(
            "INSERT INTO calls.run_budget (tenant_id, run_id, limit_id, asset, amount, changed_at)"
            " SELECT 'crowd', 'at-once-' || n, 'run:crowd/at-once-' || n, 'CREDIT/6', 1, %s"
            " FROM generate_series(1, %s) n",
            (scene.world.clock.now(), count),
        )
    budgets.refresh()
    runs = [f"at-once-{number}" for number in range(1, count + 1)]

    async def step() -> list[bool]:
        return [await budgets.find("crowd", run) is None for run in runs]

    assert not any(asyncio.run(step()))


def test_no_call_is_planned_before_budgets_are_known(scene: Scene) -> None:
    began, may_end = threading.Event(), threading.Event()

    def learn() -> None:
        began.set()
        assert may_end.wait(30)

    async def step() -> None:
        world = scene.world
        facts = CallFacts(scene.clickhouse)
        prices = CallPrices(world.catalog, facts, world.clock, scene.settings, learn)
        first = asyncio.create_task(prices.rater())
        assert await asyncio.to_thread(began.wait, 30)
        second = asyncio.create_task(prices.rater())
        await asyncio.wait({first, second}, timeout=0.1)
        assert not first.done() and not second.done()
        may_end.set()
        assert await first is await second

    asyncio.run(step())


def test_a_run_budget_cannot_be_raced(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        await calls.run_budgets.put("acme", "race", asset="CREDIT/6", amount_units=3_000_000)
        answers = await asyncio.gather(
            *(calls.authorize(ask(f"race-{n}", run_id="race")) for n in range(12)),
            return_exceptions=True,
        )
        permits = [one for one in answers if not isinstance(one, BaseException)]
        refused = [one for one in answers if isinstance(one, CallRefused)]
        for permit in permits:
            await calls.cancel(permit, reason="")
        return permits, refused

    permits, refused = scene.run(step)
    assert len(permits) == 3_000_000 // permits[0].credit_units
    assert len(permits) + len(refused) == 12
    assert {one.retry for one in refused} == {"wait"}


def test_a_top_up_that_is_asked_for_again_is_made_once(scene: Scene) -> None:
    async def step(calls: Calls) -> Any:
        permit = await calls.authorize(ask("twice", tokens_output_max=10))
        first = await calls.top_up(permit, tokens_output=1000)
        held = scene.world.ledger.balance("acme").held
        rebuilt = await calls.permit(permit.hold_id, ACME)
        again = await calls.top_up(rebuilt, tokens_output=1000)
        assert scene.world.ledger.balance("acme").held == held
        await calls.cancel(permit, reason="")
        return first, again

    first, again = scene.run(step)
    assert again.credit_units == first.credit_units
    assert (again.tokens_output, again.expires_at) == (1000, first.expires_at)


def test_another_spelling_is_no_way_around_what_a_key_says(scene: Scene) -> None:
    pinned = msgspec.structs.replace(ACME, attribution={"user": "alice", "team_id": "red"})

    async def step(calls: Calls) -> Any:
        said = {"user_id": "mallory", "team": "blue", "env": "prod"}
        permit = await calls.authorize(ask("spelt", principal=pinned, attribution=said))
        await calls.cancel(permit, reason="")
        return permit

    permit = scene.run(step)
    wanted = {"user": "alice", "team": "red", "environment": "prod", "key": "k1"}
    assert permit.ask.attribution == wanted


def test_a_call_of_thousands_of_tools_fails_nobody_else(scene: Scene) -> None:
    tools = {f"tool-{number}": 2_500 for number in range(4)}

    async def step(calls: Calls) -> Any:
        permits = [
            await calls.authorize(ask(f"tools-{number}", tokens_input=20)) for number in range(6)
        ]
        usage = Usage(tokens_input=10, tokens_output=5)
        many = msgspec.structs.replace(usage, tools=tools)
        return await asyncio.gather(
            *(calls.settle(permit, many) for permit in permits[:3]),
            *(calls.settle(permit, usage) for permit in permits[3:]),
            return_exceptions=True,
        )

    receipts = scene.run(step)
    assert [one for one in receipts if isinstance(one, BaseException)] == []


def test_a_run_budget_is_no_other_tenants() -> None:
    assert limit_id_of("a", "b/c") != limit_id_of("a/b", "c")
    assert limit_id_of("a" * 128, "b" * 128) != limit_id_of("a" * 128, "b" * 127)


def test_an_answer_stays_when_its_key_may_not_call_the_model_any_more(scene: Scene) -> None:
    later = msgspec.structs.replace(ACME, models=("gpt-4o-mini",))

    async def step(calls: Calls) -> Any:
        first = await calls.authorize(ask("narrowed"))
        again = await calls.authorize(ask("narrowed", principal=later))
        with pytest.raises(CallRefused):
            await calls.authorize(ask("narrowed", principal=later, tokens_input=7))
        await calls.cancel(first, reason="")
        return first, again

    first, again = scene.run(step)
    assert again.hold_id == first.hold_id
