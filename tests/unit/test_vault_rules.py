"""The vault's pure rules: what is summed, by what, and exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tallystick.clock import MINUTE
from tallystick.enforcement.vault import fold
from tallystick.enforcement.vault.model import SCOPE_COLUMNS
from tallystick.enforcement.vault.rules import (
    is_crossed,
    percent_used,
    remaining_units,
    units_of,
    usage_target,
)
from tallystick.events.batch import batch_of
from tallystick.events.model import EVENT_FIELDS, Event


def folded(events: list[Event], costs: list[int], signs: list[int]) -> Any:
    columns = dict(zip(EVENT_FIELDS, batch_of(events).columns, strict=True))
    rated = {"cost_units": costs, "credit_units": [0]}
    return fold(columns, rated, np.array(signs))


def event(number: int, **changes: Any) -> Event:
    return Event(
        event_id=str(number),
        event_type="cost",
        occurred_at=changes.pop("at", 0),
        received_at=0,
        tenant_id=changes.pop("tenant_id", "t"),
        **changes,
    )


def scopes_of(cells: Any, name: str) -> list[str]:
    return sorted(scope[SCOPE_COLUMNS.index(name)] for scope in cells.scopes)


def test_more_money_than_64_bits_is_summed_exactly() -> None:
    most = 10**15
    cells = folded([event(n) for n in range(20_000)], [most] * 20_000, [1] * 20_000)
    assert units_of("USD", cells.sums) == [20_000 * most]
    assert 20_000 * most > 2**64


def test_what_does_not_count_leaves_no_cell() -> None:
    cells = folded([event(1, user_id="a"), event(2, user_id="b")], [5, 7], [1, 0])
    assert scopes_of(cells, "user_id") == ["a"]
    assert folded([event(1), event(2)], [5, 5], [1, -1]).scopes == []


def test_events_count_in_the_quarter_of_an_hour_when_they_occurred() -> None:
    cells = folded([event(n, at=n * 14 * MINUTE) for n in range(3)], [1] * 3, [1] * 3)
    assert cells.buckets.tolist() == [0, 15 * MINUTE]
    assert cells.sums["events"].tolist() == [2, 1]


def test_attributes_name_org_and_key_and_a_tenant_is_its_own_org() -> None:
    attributes = [
        '{"tallystick_key":"k1","tallystick_org":"o"}',
        '{"tallystick_key":"hmac:0123456789abcdef"}',
        "",
    ]
    events = [event(n, attrs=text, user_id=str(n)) for n, text in enumerate(attributes)]
    cells = folded(events, [1] * 3, [1] * 3)
    assert scopes_of(cells, "org") == ["o", "t", "t"]
    assert scopes_of(cells, "key_id") == ["", "", "k1"]


def test_two_tenants_never_share_a_scope() -> None:
    cells = folded([event(1), event(2, tenant_id="u")], [1, 1], [1, 1])
    assert scopes_of(cells, "tenant_id") == scopes_of(cells, "org") == ["t", "u"]


@pytest.mark.parametrize(
    ("assigned", "spent", "held", "remaining", "percent"),
    [(100, 30, 20, 50, "30.00"), (10, 15, 0, -5, "150.00"), (0, 1, 0, -1, "")],
)
def test_what_remains(assigned: int, spent: int, held: int, remaining: int, percent: str) -> None:
    assert remaining_units(assigned, spent, held) == remaining
    assert percent_used(assigned, spent) == percent


def test_a_threshold_is_crossed_at_its_share() -> None:
    assert [is_crossed("0.8", 10, spent) for spent in (7, 8)] == [False, True]


def test_a_target_is_what_no_hold_captured() -> None:
    assert [usage_target(10, captured) for captured in (0, 4, 12)] == [10, 6, 0]
    assert usage_target(10**30, 0) < 2**63
