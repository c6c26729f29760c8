"""Any order, any batching, any repeats: the vault comes to the same bytes, and so does a replay."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.enforcement.vault import VaultStore
from tests.vault_world import follow, follower_of, rebuilt
from tests.world import World

_serial = count()

event_shapes = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["token_usage", "cost", "tool_call_finished", "run_failed"]),
            "user": st.integers(0, 2),
            "project": st.integers(0, 1),
            "model": st.sampled_from(["gpt-4o", "no-such-model"]),
            "tokens": st.integers(0, 10**9),
            "scope": st.sampled_from(["leaf", "aggregate"]),
            "error": st.sampled_from(["", "boom"]),
            "age": st.integers(0, 9 * 86_400),
        }
    ),
    min_size=1,
    max_size=20,
)


def _messages(shapes: list[dict[str, Any]], tenant: str, now: str, world: World) -> list[Any]:
    messages = []
    for number, shape in enumerate(shapes):
        message: dict[str, Any] = {
            "event_id": f"e{number}",
            "event_type": shape["kind"],
            "event_time": now if shape["age"] == 0 else world.at(-shape["age"]),
            "tenant_id": tenant,
            "user_id": f"u{shape['user']}",
            "project_id": f"p{shape['project']}",
            "error_code": shape["error"],
        }
        if shape["kind"] == "token_usage":
            message |= {"provider": "openai", "model": shape["model"]}
            message |= {"tokens_input": shape["tokens"], "usage_scope": shape["scope"]}
        if shape["kind"] == "cost":
            message |= {"cost_amount": f"0.{shape['tokens']:09d}", "cost_currency": "USD"}
        messages.append(message)
    return messages


def _lines(world: World, tenant: str) -> list[bytes]:
    """What one tenant spent; the order of scopes depends on its name."""
    name = f'["{tenant}",'.encode()
    lines = VaultStore(world.pool).dump().replace(f'"{tenant}"'.encode(), b'"t"').splitlines()
    assert name not in b"".join(lines)
    return sorted(line for line in lines if line.startswith(b'["t",'))


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(shapes=event_shapes, plan=st.data())
def test_any_order_any_batching_any_duplication_same_bytes(
    world: World, shapes: list[dict[str, Any]], plan: st.DataObject
) -> None:
    number, now = next(_serial), world.at()
    straight = _messages(shapes, f"a{number}", now, world)
    crooked = [{**one, "tenant_id": f"b{number}"} for one in straight]
    world.send(straight)
    follow(follower_of(world))
    repeats = plan.draw(st.lists(st.sampled_from(crooked), max_size=8), label="repeats")
    stream = plan.draw(st.permutations(crooked + repeats), label="order")
    cuts = sorted(plan.draw(st.sets(st.integers(1, len(stream)), max_size=4), label="cuts"))
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        if stream[start:end]:
            world.send(stream[start:end])
        if plan.draw(st.booleans(), label="follow"):
            follow(follower_of(world, events_per_step=plan.draw(st.integers(1, 9), label="step")))
    follow(follower_of(world))
    assert _lines(world, f"a{number}") == _lines(world, f"b{number}")
    before = VaultStore(world.pool).dump()
    assert rebuilt(world, events_per_step=plan.draw(st.integers(1, 50), label="again")) == before
