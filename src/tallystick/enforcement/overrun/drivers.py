"""Drivers: why a cost changed, as effects that add up to the change to the nano-dollar.

Pure and exact (rational numbers). The cost of a cell (a model, tool and feature) is a product:

    first tries x share of the cell x calls per first try x full tokens per call
                x weight after cache hits x price per weighted token

and the change of a product is split by Shapley's value: each factor's effect is its mean effect
over every order in which the factors could have changed (Shapley 1953; Albrecht, Francois and
Schoors 2002 for decompositions). Unlike LMDI it needs no logarithm, so it is exact and takes
zeros. Weights: an output token counts 4, one read from a cache 1/10, as most price lists have
it; where a price list differs, the difference shows as price. What has cost without calls
(corrections) is `other`. Effects are rounded to integers; `remainder` is what rounding left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from math import factorial, prod
from typing import NamedTuple

EFFECTS = ("volume", "mix", "retries", "tokens_per_call", "cache_hits", "price")
OUTPUT_WEIGHT = Fraction(4)
CACHE_WEIGHT = Fraction(1, 10)

Cell = tuple[str, ...]
"""What the mix is of, such as (model, tool, feature)."""


class Used(NamedTuple):
    """Sums of one cell in one range."""

    cost_units: int = 0
    """USD/9."""
    calls: int = 0
    retries: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    cache_reads: int = 0


class Decomposition(NamedTuple):
    """Why the cost changed; the effects and the remainder add up to the difference."""

    before_units: int
    after_units: int
    effects: Mapping[str, int]
    """Effect -> USD/9, with `other` and `remainder`."""

    @property
    def difference_units(self) -> int:
        """USD/9."""
        return self.after_units - self.before_units


class Contribution(NamedTuple):
    """What one value of a dimension added to the change, USD/9."""

    value: str
    before_units: int
    after_units: int

    @property
    def difference_units(self) -> int:
        """USD/9."""
        return self.after_units - self.before_units


NOTHING = Used()


def decompose(before: Mapping[Cell, Used], after: Mapping[Cell, Used]) -> Decomposition:
    """Split the change of cost into effects, exactly."""
    sums = dict.fromkeys(EFFECTS, Fraction(0))
    other = Fraction(0)
    first_tries = tuple(_first_tries(side) for side in (before, after))
    for cell in before.keys() | after.keys():
        sides = before.get(cell, NOTHING), after.get(cell, NOTHING)
        factors = _factors(sides, first_tries)
        if factors is None:
            other += sides[1].cost_units - sides[0].cost_units
            continue
        for name, effect in zip(EFFECTS, shapley(*factors), strict=True):
            sums[name] += effect
    effects = {name: round(value) for name, value in sums.items()}
    effects["other"] = round(other)
    costs = [sum(used.cost_units for used in side.values()) for side in (before, after)]
    effects["remainder"] = costs[1] - costs[0] - sum(effects.values())
    return Decomposition(costs[0], costs[1], effects)


def shapley(before: Sequence[Fraction], after: Sequence[Fraction]) -> list[Fraction]:
    """Each factor's share in the change of their product; the shares add up to it.

    >>> [str(share) for share in shapley([Fraction(2), Fraction(3)], [Fraction(4), Fraction(5)])]
    ['8', '6']
    """
    moved = [place for place in range(len(before)) if before[place] != after[place]]
    still = prod(
        (before[place] for place in range(len(before)) if place not in moved), start=Fraction(1)
    )
    shares = [Fraction(0)] * len(before)
    count = len(moved)
    for place in moved:
        others = [one for one in moved if one != place]
        for size in range(count):
            weight = Fraction(factorial(size) * factorial(count - size - 1), factorial(count))
            for changed in combinations(others, size):
                rest = prod(
                    (after[one] if one in changed else before[one] for one in others),
                    start=Fraction(1),
                )
                shares[place] += weight * rest
        shares[place] *= (after[place] - before[place]) * still
    return shares


def contributions(
    before: Mapping[str, int], after: Mapping[str, int], *, most: int
) -> list[Contribution]:
    """What each value added to the change, greatest first; the rest is one row, named "…"."""
    rows = [
        Contribution(value, before.get(value, 0), after.get(value, 0))
        for value in before.keys() | after.keys()
    ]
    rows.sort(key=lambda row: (-abs(row.difference_units), row.value))
    kept, rest = rows[:most], rows[most:]
    if rest:
        sums = [sum(row.before_units for row in rest), sum(row.after_units for row in rest)]
        kept.append(Contribution("…", *sums))
    return kept


def _first_tries(side: Mapping[Cell, Used]) -> int:
    return sum(_tries(used)[0] for used in side.values() if used.calls > 0)


def _tries(used: Used) -> tuple[int, Fraction]:
    """First tries, and calls for each; a window without the first try counts its calls."""
    first = used.calls - used.retries
    if first <= 0 or used.retries < 0:
        return used.calls, Fraction(1)
    return first, Fraction(used.calls, first)


def _factors(
    sides: tuple[Used, Used], first_tries: tuple[int, ...]
) -> tuple[list[Fraction], list[Fraction]] | None:
    """The six factors before and after; None when the cost is not of calls."""
    if any(used.calls <= 0 and used.cost_units for used in sides):
        return None
    if any(used.calls < 0 for used in sides) or not any(used.calls for used in sides):
        return None
    is_by_call = any(used.calls and _weighted(used)[1] <= 0 for used in sides)
    ratios = [_ratios(used, is_by_call) if used.calls else None for used in sides]
    shares = [
        Fraction(_tries(used)[0], total) if used.calls and total else Fraction(0)
        for used, total in zip(sides, first_tries, strict=True)
    ]
    if not all(first_tries):  # from nothing, or to nothing: all of it is volume
        shares = [sum(shares, Fraction(0))] * 2
    shown = [
        [Fraction(total), share, *(own or foreign or [])]
        for total, share, own, foreign in zip(
            first_tries, shares, ratios, reversed(ratios), strict=True
        )
    ]
    return shown[0], shown[1]


def _ratios(used: Used, is_by_call: bool) -> list[Fraction]:
    retries = _tries(used)[1]
    if is_by_call:
        return [retries, Fraction(1), Fraction(1), Fraction(used.cost_units, used.calls)]
    full, weighted = _weighted(used)
    return [
        retries,
        full / used.calls,
        weighted / full,
        used.cost_units / weighted,
    ]


def _weighted(used: Used) -> tuple[Fraction, Fraction]:
    """Tokens by what they weigh: all at the full price, and after cache hits."""
    full = used.tokens_input + OUTPUT_WEIGHT * used.tokens_output
    hits = min(max(used.cache_reads, 0), max(used.tokens_input, 0))
    return full, full - hits * (1 - CACHE_WEIGHT)
