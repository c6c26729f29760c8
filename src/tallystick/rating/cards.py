"""Rate cards as they are written (JSON) and as they are compiled for speed (integers).

A price is decimal text per million tokens (per thousand requests). Compiled, it is an
integer of yocto-units a token: 10^-24 USD or credits, so text of up to 18 decimals is exact.
A list of [above_tokens, price] pairs is a tier: the input tokens of the call choose one
price for all of its tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from tallystick.clock import DAY
from tallystick.errors import InvalidInput

YOCTO_PER_NANO = 10**15
YOCTO_PER_MICRO = 10**18
_YOCTO_PER_MILLIONTH = 10**18
TOKEN_CLASSES = ("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning")

Price = str | list[tuple[int, str]]
Clause = dict[str, Any]


class PricePeriod(msgspec.Struct, omit_defaults=True):
    """Rates with when they apply: from a UTC date, and within a daily window."""

    rates: dict[str, Price]
    from_date: str = ""
    daily: tuple[str, str] | None = None
    """("HH:MM:SS", "HH:MM:SS") UTC, half-open; may cross midnight."""
    when: dict[str, str] = {}
    """For a variant: request properties (service_tier, speed, processing) that choose it."""


class ModelPrices(msgspec.Struct, omit_defaults=True):
    """A model: how its names are recognised, and its prices; later periods win."""

    id: str
    match: Clause
    prices: list[PricePeriod]
    variants: list[PricePeriod] = []


class ProviderPrices(msgspec.Struct, omit_defaults=True):
    """A provider with its models, most specific first."""

    id: str
    models: list[ModelPrices]
    model_match: Clause | None = None
    provider_match: Clause | None = None
    fallback_providers: list[str] = []


class CostCard(msgspec.Struct, omit_defaults=True):
    """What providers bill us, in USD."""

    providers: list[ProviderPrices]
    currency: str = "USD"


class CreditCard(msgspec.Struct, omit_defaults=True):
    """What we charge, in credits.

    Tokens cost their provider's price times `token_markup`, divided by the face value of a
    credit, unless `models` names credits per million tokens by model and token class.
    """

    face_value_usd: str = "0.01"
    token_markup: str = "1.2"
    models: dict[str, dict[str, str]] = {}
    tool_call_credits: str = "0.05"
    tool_credits: dict[str, str] = {}
    runtime_credits_per_second: str = "0.01"
    failed_tool_calls: str = "free"
    attempts: str = "last"
    failed_runs: str = "charge"
    late_events: str = "charge"


class RateCardVersion(msgspec.Struct):
    """One version of a card, in force from `effective_at` (micros) until the next."""

    version_id: int
    kind: str
    tenant_id: str
    effective_at: int
    recorded_at: int
    content: bytes


def compile_price(price: Price, field: str) -> tuple[tuple[int, int], ...]:
    """Turn text or tiers into ((above_tokens, yocto a token), ...), highest tier first."""
    tiers = [(0, price)] if isinstance(price, str) else list(price)
    return tuple(sorted(((above, _yocto(text, field)) for above, text in tiers), reverse=True))


def _yocto(text: str, field: str) -> int:
    try:
        scaled = Decimal(text) * _YOCTO_PER_MILLIONTH
    except ArithmeticError:
        raise InvalidInput(f"{field}: {text[:40]!r} is not a price", field=field) from None
    if not scaled.is_finite() or scaled < 0 or scaled != scaled.to_integral_value():
        raise InvalidInput(
            f"{field}: a price is decimal text from 0 with at most 18 decimals", field=field
        )
    return int(scaled)


def compile_clause(clause: Clause | None) -> Callable[[str], bool]:
    """Turn a match clause into a test of a lower-case name; None matches nothing."""
    if clause is None:
        return lambda name: False
    if len(clause) != 1:
        raise InvalidInput("a match clause has one key", code="bad_clause", field="match")
    kind, value = next(iter(clause.items()))
    if kind in ("or", "and"):
        tests = [compile_clause(part) for part in value]
        combine = any if kind == "or" else all
        return lambda name: combine(test(name) for test in tests)
    if kind not in _TESTS or not isinstance(value, str):
        raise InvalidInput(
            f"a match clause is one of {', '.join([*_TESTS, 'or', 'and'])}",
            code="bad_clause",
            field="match",
        )
    return _TESTS[kind](value)


def _regex(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda name: compiled.search(name) is not None


_TESTS: Mapping[str, Callable[[str], Callable[[str], bool]]] = {
    "equals": lambda wanted: lambda name: name == wanted.lower(),
    "starts_with": lambda wanted: lambda name: name.startswith(wanted.lower()),
    "ends_with": lambda wanted: lambda name: name.endswith(wanted.lower()),
    "contains": lambda wanted: lambda name: wanted.lower() in name,
    "regex": _regex,
}


class Period:
    """A compiled price period."""

    def __init__(self, period: PricePeriod, field: str) -> None:
        self.rates = {
            name: compile_price(price, f"{field}.{name}") for name, price in period.rates.items()
        }
        self.when = period.when
        self._from = _date_micros(period.from_date)
        self._daily = tuple(map(_time_micros, period.daily)) if period.daily else None

    @property
    def is_always(self) -> bool:
        """Whether it applies at every time."""
        return self._from == 0 and self._daily is None

    def applies(self, at: int) -> bool:
        """Tell whether it applies at an instant (micros)."""
        if at < self._from:
            return False
        if self._daily is None:
            return True
        start, end = self._daily
        moment = at % DAY
        return start <= moment < end if start <= end else moment >= start or moment < end


def _date_micros(text: str) -> int:
    if not text:
        return 0
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def _time_micros(text: str) -> int:
    hours, minutes, seconds = (int(part) for part in text.split(":"))
    return ((hours * 60 + minutes) * 60 + seconds) * 1_000_000
