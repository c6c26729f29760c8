"""Token prices for many calls at once: the same sums as one by one, in 64-bit halves.

A price is an integer of yocto-units (10^-24); a call's cost does not fit into 64 bits. So a
number is held as two halves, `high * 10^9 + low` with low < 10^9, and every step checks
beforehand that no half can overflow. What could overflow is left to exact Python integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tallystick.rating.cards import TOKEN_CLASSES

Tiers = tuple[tuple[int, int], ...]
Integers = npt.NDArray[np.int64]
_BASE = 10**9
_SAFE = 2**62


class Wide(NamedTuple):
    """Numbers of up to 122 bits, not negative: high * 10^9 + low."""

    high: Integers
    low: Integers


def sum_prices(
    rates: Mapping[str, Tiers], amounts: Mapping[str, Integers], tokens_input: Integers
) -> Wide | None:
    """Sum amount x rate over the token classes; None when not exact in 64-bit halves."""
    high = np.zeros(len(tokens_input), np.int64)
    low = np.zeros(len(tokens_input), np.int64)
    bound = 0
    for name in TOKEN_CLASSES:
        amount, tiers = amounts[name], rates.get(name)
        if int(amount.min(initial=0)) < 0:
            return None
        most = int(amount.max(initial=0))
        if not most or tiers is None:
            continue
        bound += most * (max(price for _, price in tiers) // _BASE + 1)
        if bound >= _SAFE or most > _BASE:
            return None
        price_high, price_low = _price(tiers, tokens_input)
        high += amount * price_high
        low += amount * price_low
        high, low = high + low // _BASE, low % _BASE
    if (per_request := rates.get("request")) is not None:
        bound += per_request[0][1] // _BASE + 1
        if bound >= _SAFE:
            return None
        high = high + per_request[0][1] // _BASE
        low = low + per_request[0][1] % _BASE
        high, low = high + low // _BASE, low % _BASE
    return Wide(high, low)


def _price(tiers: Tiers, tokens_input: Integers) -> tuple[Integers | int, Integers | int]:
    if len(tiers) == 1:
        return divmod(tiers[0][1], _BASE)
    chosen = [
        tokens_input > above if above else np.ones_like(tokens_input, bool) for above, _ in tiers
    ]
    high = np.select(chosen, [np.int64(price // _BASE) for _, price in tiers], np.int64(0))
    low = np.select(chosen, [np.int64(price % _BASE) for _, price in tiers], np.int64(0))
    return high, low


def times(number: Wide, factor: int) -> Wide | None:
    """Multiply by a small integer; None when a half could overflow."""
    if factor >= _BASE or (int(number.high.max(initial=0)) + 1) * factor >= _SAFE:
        return None
    low = number.low * factor
    return Wide(number.high * factor + low // _BASE, low % _BASE)


def divide_by_power(number: Wide, digits: int) -> Integers:
    """Divide by 10^digits (9 to 18), rounding to nearest, ties to even."""
    divisor = 10 ** (digits - 9)
    quotient, rest = number.high // divisor, number.high % divisor
    remainder = rest * _BASE + number.low
    half = 5 * 10 ** (digits - 1)
    rounds_up = (remainder > half) | ((remainder == half) & (quotient % 2 == 1))
    rounded: Integers = quotient + rounds_up
    return rounded
