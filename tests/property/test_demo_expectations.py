"""What must come out does not depend on how the demo disturbs what goes in."""

from __future__ import annotations

import random
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.demo.disturb import disturb
from tallystick.demo.expected import expect
from tallystick.demo.traces import Message, airline_messages, cost_records
from tests.unit.demo.moment import NOW, SEED
from tests.unit.demo.reading import identity, read_events

_RNG = random.Random(SEED)
_MESSAGES: list[Message] = [
    *islice(airline_messages(NOW, _RNG), 400),
    *islice(cost_records(NOW, _RNG), 40),
]
_EXPECTED = expect(_MESSAGES)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_messages_changes_nothing(order: random.Random) -> None:
    shuffled = list(_MESSAGES)
    order.shuffle(shuffled)
    assert expect(shuffled) == _EXPECTED


@settings(max_examples=15, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_first_arrivals_of_any_disturbance_add_up_to_the_same(seed: int) -> None:
    """Reading what is sent, each id once, gives the expectation; the rest is duplicates."""
    delivery, record = disturb(_MESSAGES, NOW, seed)
    *requests, _ = delivery.requests
    arrived: dict[tuple[str, str], Message] = {}
    deliveries = 0
    for request in requests:
        for event in read_events(request):
            deliveries += 1
            arrived.setdefault(identity(event), event)
    assert expect(list(arrived.values())) == _EXPECTED
    assert deliveries - len(arrived) == record.duplicates
