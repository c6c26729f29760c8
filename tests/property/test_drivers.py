"""The driver decomposition adds up to the nano-dollar, whatever changed."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.enforcement.overrun.drivers import (
    EFFECTS,
    Cell,
    Used,
    contributions,
    decompose,
    shapley,
)

_COUNT = st.integers(0, 10**6)
_CALLS = st.integers(-1, 1000)
_USED = st.builds(Used, st.integers(-(10**9), 10**15), _CALLS, _CALLS, _COUNT, _COUNT, _COUNT)
_CELLS = st.dictionaries(st.sampled_from([("a",), ("b",), ("c",), ("d",)]), _USED, max_size=4)
_FACTOR = st.fractions(0, 1000, max_denominator=50)


@settings(max_examples=120, deadline=None)
@given(_CELLS, _CELLS)
def test_effects_add_up_to_the_difference(
    before: dict[tuple[str, ...], Used], after: dict[tuple[str, ...], Used]
) -> None:
    found = decompose(before, after)
    observed = sum(one.cost_units for one in after.values()) - sum(
        one.cost_units for one in before.values()
    )
    assert found.difference_units == observed
    assert sum(found.effects.values()) == observed
    assert abs(found.effects["remainder"]) <= len(EFFECTS)  # half a unit of rounding each


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_FACTOR, _FACTOR), min_size=1, max_size=6))
def test_shapley_shares_are_exact(pairs: list[tuple[Fraction, Fraction]]) -> None:
    before, after = [one for one, _ in pairs], [one for _, one in pairs]
    products = Fraction(1), Fraction(1)
    for one, other in pairs:
        products = products[0] * one, products[1] * other
    assert sum(shapley(before, after)) == products[1] - products[0]


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), st.integers(-1000, 1000)),
    st.dictionaries(st.text(max_size=3), st.integers(-1000, 1000)),
    st.integers(1, 4),
)
def test_contributions_add_up_whatever_is_shown(
    before: dict[str, int], after: dict[str, int], most: int
) -> None:
    rows = contributions(before, after, most=most)
    assert sum(row.difference_units for row in rows) == sum(after.values()) - sum(before.values())


def test_twice_the_calls_are_volume_alone() -> None:
    one = Used(1000, 10, 0, 5000, 500, 1000)
    two = Used(2000, 20, 0, 10_000, 1000, 2000)
    assert decompose({("m",): one}, {("m",): two}).effects == {
        **dict.fromkeys(EFFECTS, 0), "volume": 1000, "other": 0, "remainder": 0,
    }  # fmt: skip


def test_a_higher_price_is_price_alone() -> None:
    one, two = Used(1000, 10, 0, 5000, 500, 1000), Used(6000, 10, 0, 5000, 500, 1000)
    assert decompose({("m",): one}, {("m",): two}).effects["price"] == 5000


def test_a_lost_cache_shows_as_cache_hits() -> None:
    one = Used(3800, 10, 0, 5000, 0, 4000 * 1)
    two = Used(13_571, 10, 0, 5000, 0, 0)
    effects = decompose({("m",): one}, {("m",): two}).effects
    assert effects["cache_hits"] > 0.95 * (13_571 - 3800)
    assert effects["volume"] == effects["mix"] == effects["tokens_per_call"] == 0


def test_retries_and_mix_are_told_apart() -> None:
    before: dict[Cell, Used] = {
        ("a",): Used(1000, 10, 0, 1000, 0, 0),
        ("b",): Used(100, 10, 0, 1000, 0, 0),
    }
    retried: dict[Cell, Used] = {
        ("a",): Used(3000, 30, 20, 3000, 0, 0),
        ("b",): Used(100, 10, 0, 1000, 0, 0),
    }
    assert decompose(before, retried).effects["retries"] == 2000
    shifted: dict[Cell, Used] = {("a",): Used(2000, 20, 0, 2000, 0, 0)}
    assert decompose(before, shifted).effects["mix"] == 900


def test_from_nothing_all_is_volume() -> None:
    after: dict[Cell, Used] = {("a",): Used(1000, 10, 0, 1000, 0, 0), ("b",): Used(5, 1, 0, 9, 9)}
    assert decompose({}, after).effects["volume"] == 1005
    assert decompose(after, {}).effects["volume"] == -1005
