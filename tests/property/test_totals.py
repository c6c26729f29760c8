"""INV-09: any order, any batching, any duplication: same totals, on the real stores."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.world import World

_serial = count()
_COST = {"gpt-4o": Decimal("0.0000025"), "no-such-model": None}
_OUTPUT_COST = Decimal("0.00001")

event_shapes = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["token_usage", "tool_call_finished", "run_completed"]),
            "run": st.integers(0, 3),
            "attempt": st.integers(1, 2),
            "model": st.sampled_from(list(_COST)),
            "tokens": st.integers(0, 10**6),
            "failed": st.booleans(),
            "age": st.integers(0, 9 * 86_400),
        }
    ),
    min_size=1,
    max_size=25,
)


def _messages(shapes: list[dict[str, Any]], tenant: str, world: World) -> list[dict[str, Any]]:
    messages = []
    for number, shape in enumerate(shapes):
        message: dict[str, Any] = {
            "event_id": f"e{number}",
            "event_type": shape["kind"],
            "event_time": world.at(-shape["age"]),
            "tenant_id": tenant,
            "run_id": f"r{shape['run']}" if shape["run"] else "",
            "attempt": shape["attempt"] if shape["run"] else 1,
        }
        if shape["kind"] == "token_usage":
            message |= {"provider": "openai", "model": shape["model"]}
            message |= {"tokens_input": shape["tokens"], "tokens_output": shape["tokens"] // 3}
        elif shape["kind"] == "tool_call_finished":
            message |= {"tool": "search"} | ({"error_code": "boom"} if shape["failed"] else {})
        messages.append(message)
    return messages


def _reference(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The totals by plain arithmetic, sharing no rule with the product."""
    counts: Counter[str] = Counter()
    cost, credit = Decimal(0), Decimal(0)
    last: dict[str, int] = {}
    for message in messages:
        last[message["run_id"]] = max(last.get(message["run_id"], 1), message["attempt"])
    for message in messages:
        is_charged = not message["run_id"] or message["attempt"] == last[message["run_id"]]
        earned = Decimal(0)
        if message["event_type"] == "token_usage":
            counts["calls"] += 1
            counts["tokens_input"] += message["tokens_input"]
            rate = _COST[message["model"]]
            if rate is None:
                counts["unpriced_calls"] += 1
            else:
                price = message["tokens_input"] * rate + message["tokens_output"] * _OUTPUT_COST
                cost += price
                earned = price * 120
        elif message["event_type"] == "tool_call_finished":
            counts["tool_calls"] += 1
            counts["errors"] += "error_code" in message
            earned = Decimal(0) if "error_code" in message else Decimal("0.05")
        credit += earned if is_charged else 0
    runs = {message["run_id"] for message in messages} - {""}
    return {
        "events": len(messages),
        "runs": len(runs),
        "cost_usd": cost,
        "credits": credit,
        **{name: counts[name] for name in ("calls", "tool_calls", "errors", "unpriced_calls")},
        "tokens_input": counts["tokens_input"],
    }


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes=event_shapes, plan=st.data())
def test_any_order_any_batching_any_duplication_same_totals(
    world: World, shapes: list[dict[str, Any]], plan: st.DataObject
) -> None:
    tenant = f"p{next(_serial)}"
    messages = _messages(shapes, tenant, world)
    repeats = plan.draw(st.lists(st.sampled_from(messages), max_size=10), label="repeats")
    stream = plan.draw(st.permutations(messages + repeats), label="order")
    cuts = sorted(plan.draw(st.sets(st.integers(1, len(stream)), max_size=4), label="cuts"))
    crashes = plan.draw(st.sets(st.integers(0, len(cuts))), label="crashes")
    accepted = duplicates = 0
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(stream)], strict=True)):
        receipt = world.send(stream[start:end])
        accepted += receipt.accepted
        duplicates += receipt.duplicates
        assert not receipt.rejected
        if number in crashes:
            world.settle()
            world.restart_followers()
    world.settle()
    assert (accepted, duplicates) == (len(messages), len(repeats))
    _assert_totals(world, tenant, _reference(messages))
    assert world.verifier.violations() == []


def _assert_totals(world: World, tenant: str, wanted: dict[str, Any]) -> None:
    for more in ({}, {"group_by": ("user",)}):  # from the rollup, and folded from the facts
        got = world.totals(tenant, **more)
        for name, value in wanted.items():
            assert (Decimal(got[name]) if isinstance(value, Decimal) else got[name]) == value, name
    charged = world.ledger.load_run_targets()
    mine = sum(units for (owner, _), units in charged.items() if owner == tenant)
    assert Decimal(mine) / 10**6 == wanted["credits"]
