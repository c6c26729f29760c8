"""Any facts, prices, backfills, crashes and reverts: the same as plain arithmetic on the facts."""

from __future__ import annotations

from decimal import Decimal
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.clock import format_time
from tests.backfills import BackfillWorld
from tests.world import World

_serial = count()

facts = st.lists(
    st.fixed_dictionaries(
        {
            "run": st.integers(0, 3),
            "attempt": st.integers(1, 2),
            "model": st.sampled_from(["m", "unknown"]),
            "tokens": st.integers(0, 10**6),
            "age": st.integers(0, 9 * 86_400),
        }
    ),
    min_size=1,
    max_size=20,
)
backfill = st.fixed_dictionaries(
    {
        "what": st.just("backfill"),
        "from_age": st.integers(0, 10 * 86_400),
        "to_age": st.integers(-10, 9 * 86_400),
        "only_m": st.booleans(),
        "crashes": st.sets(st.integers(0, 3), max_size=2),
        "piece": st.integers(1, 8),
    }
)
steps = st.lists(
    st.one_of(
        st.fixed_dictionaries({"what": st.just("price"), "price": st.integers(0, 50)}),
        backfill,
        st.fixed_dictionaries({"what": st.just("revert"), "which": st.integers(0, 3)}),
    ),
    min_size=2,
    max_size=6,
)


class _Reference:
    """What each fact costs per million tokens, by hand: prices, backfills, and how to undo."""

    def __init__(self, shapes: list[dict[str, Any]]) -> None:
        self.facts = shapes
        self.prices = [1] * len(shapes)
        self.price = 1
        self.done: list[dict[int, tuple[int, int]]] = []
        self.known = {1}

    def set_price(self, price: int) -> None:
        """A price that was recorded before is not recorded again: the latest stays in force."""
        if price not in self.known:
            self.known.add(price)
            self.price = price

    def backfill(self, chosen: list[int]) -> None:
        changed = {}
        for index in chosen:
            if self.prices[index] != self.price:
                changed[index] = (self.prices[index], self.price)
                self.prices[index] = self.price
        self.done.append(changed)

    def revert(self, which: int) -> None:
        changed = {}
        for index, (old, new) in self.done[which].items():
            if self.prices[index] == new:
                changed[index] = (new, old)
                self.prices[index] = old
        self.done.append(changed)

    def cost(self) -> Decimal:
        return sum(
            (
                Decimal(price) * fact["tokens"] / 10**6
                for price, fact in zip(self.prices, self.facts, strict=True)
                if fact["model"] == "m"
            ),
            Decimal(0),
        )

    def credits(self) -> dict[str, Decimal]:
        """By run: only the last attempt is charged; what has no run is one by one."""
        last: dict[int, int] = {}
        for fact in self.facts:
            last[fact["run"]] = max(last.get(fact["run"], 1), fact["attempt"])
        sums: dict[str, Decimal] = {}
        for price, fact in zip(self.prices, self.facts, strict=True):
            if fact["model"] == "m" and (not fact["run"] or fact["attempt"] == last[fact["run"]]):
                key = f"r{fact['run']}" if fact["run"] else ""
                units = Decimal(price) * fact["tokens"] / 10**6 * 100
                sums[key] = sums.get(key, Decimal(0)) + units
        return sums


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes=facts, plan=steps)
def test_any_backfills_agree_with_a_recompute(
    world: World, shapes: list[dict[str, Any]], plan: list[dict[str, Any]]
) -> None:
    tenant = f"b{next(_serial)}"
    backfills, reference = BackfillWorld(world), _Reference(shapes)
    backfills.set_prices(tenant, "1", "1")
    now = world.clock.now()
    _send(world, tenant, shapes, now)
    made: list[str] = []
    for step in plan:
        if step["what"] == "price":
            reference.set_price(step["price"])
            backfills.set_prices(tenant, str(step["price"]), "1")
        elif step["what"] == "backfill" and step["from_age"] > step["to_age"]:
            backfills.events_per_piece = step["piece"]
            backfills.worker = backfills.new_worker()
            chosen = [
                index
                for index, fact in enumerate(shapes)
                if step["to_age"] < fact["age"] <= step["from_age"]
                and (fact["model"] == "m" or not step["only_m"])
            ]
            more: dict[str, Any] = {"models": ("m",)} if step["only_m"] else {}
            more |= {"from_at": _moment(now, step["from_age"])}
            more |= {"to_at": _moment(now, step["to_age"])}
            made.append(backfills.ask(tenant, **more))
            _work(backfills, step["crashes"])
            reference.backfill(chosen)
        elif step["what"] == "revert" and step["which"] < len(made):
            found = backfills.service.get(made[step["which"]])
            if found["status"] != "done":
                continue
            made.append(backfills.revert(found["backfill_id"]))
            backfills.work()
            reference.revert(step["which"])
    _assert_agrees(world, tenant, reference)


def _moment(now: int, age: int) -> int:
    return (now // 1_000_000 - age) * 1_000_000


def _send(world: World, tenant: str, shapes: list[dict[str, Any]], now: int) -> None:
    messages = [
        {
            "event_id": f"e{number}",
            "event_type": "token_usage",
            "event_time": format_time(_moment(now, shape["age"])),
            "tenant_id": tenant,
            "run_id": f"r{shape['run']}" if shape["run"] else "",
            "attempt": shape["attempt"] if shape["run"] else 1,
            "provider": "p",
            "model": shape["model"],
            "tokens_input": shape["tokens"],
        }
        for number, shape in enumerate(shapes)
    ]
    receipt = world.send(messages)
    assert receipt.accepted == len(messages), receipt
    world.settle()


def _work(backfills: BackfillWorld, crashes: set[int]) -> None:
    """To the end; at some steps the worker dies, before or after its transaction."""
    for number in count():
        backfills.worker._rest = 0
        if number in crashes:
            _crash(backfills, is_after=bool(number % 2))
        progressed = backfills.worker.step()
        if number % 2:
            backfills.world.settle()
        if not progressed and backfills.worker._pieces.next_open() is None:
            backfills.world.settle()
            return


class _PowerWentError(Exception):
    pass


def _crash(backfills: BackfillWorld, *, is_after: bool) -> None:
    """A step that raises once its rows were decided, or once they were stored."""
    corrections = backfills.worker._pieces._corrections
    append = corrections.append

    def failing(*arguments: Any) -> None:
        append(*arguments)
        raise _PowerWentError

    if is_after:
        backfills.worker.step()
    else:
        corrections.append = failing  # type: ignore[method-assign, assignment]
        try:
            backfills.worker.step()
        except _PowerWentError:
            pass
    backfills.worker = backfills.new_worker()


def _assert_agrees(world: World, tenant: str, reference: _Reference) -> None:
    for more in ({}, {"group_by": ("user",)}, {"group_by": ("tenant",)}):
        total = world.totals(tenant, **more)
        assert Decimal(total["cost_usd"]) == reference.cost()
        assert total["calls"] == len(reference.facts)
        assert Decimal(total["credits"]) == sum(reference.credits().values())
    targets = world.ledger.load_run_targets()
    charged = {key: units for (owner, key), units in targets.items() if owner == tenant and units}
    assert sum(charged.values()) == sum(reference.credits().values()) * 10**6
    for key, wanted in reference.credits().items():
        assert not key or charged.get(key, 0) == wanted * 10**6
    assert world.verifier.violations() == []
