"""What a rate card may say: checked when it is recorded, because it rates for ever after.

A card that cannot be read, or that rates an event beyond 64 bits, would stop every follower that
meets an event of its tenant, with no way back. So every number is plain decimal text from 0 with
a bound, and every clause and date of every model is compiled once. The bounds are chosen so that
the largest event that the door lets in (bounds.py) stays below 2^62 under any card; a test says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from tallystick.bounds import TOKENS_MAX
from tallystick.errors import InvalidInput
from tallystick.rating.cards import (
    TOKEN_CLASSES,
    Clause,
    CostCard,
    CreditCard,
    Period,
    Price,
    PricePeriod,
    compile_clause,
)

PRICE_USD_MAX = 10_000
"""USD per million tokens: the dearest model known asks 600."""

REQUESTS_PRICE_MAX = 10**9
"""USD, or credits, per million requests."""

PRICE_CREDITS_MAX = 10**9
"""Credits per million tokens."""

CREDITS_PER_USD_MAX = 200_000
"""token_markup / face_value_usd: a credit of half a hundred-thousandth of a dollar."""

TOOL_CREDITS_MAX = 10**9
"""Credits for one tool call."""

RUNTIME_CREDITS_MAX = 10**5
"""Credits per second."""

_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
_CHOICES = {
    "failed_tool_calls": ("free", "charge"),
    "attempts": ("last", "all"),
    "failed_runs": ("charge", "free"),
    "late_events": ("charge", "free"),
}


def check_card(card: CostCard | CreditCard) -> None:
    """Raise InvalidInput (`bad_rate_card`) that names the field that cannot rate."""
    if isinstance(card, CostCard):
        _check_cost(card)
    else:
        _check_credit(card)


def _refusal(field: str, what: str) -> InvalidInput:
    where = f"content.{field[:200]}"
    return InvalidInput(f"{where}: {what}", code="bad_rate_card", field=where)


def _check_cost(card: CostCard) -> None:
    for provider in card.providers:
        _check_clause(provider.model_match, f"{provider.id}.model_match")
        _check_clause(provider.provider_match, f"{provider.id}.provider_match")
        for model in provider.models:
            where = f"{provider.id}.{model.id}"
            _check_clause(model.match, f"{where}.match")
            for period in (*model.prices, *model.variants):
                _check_prices(period.rates, PRICE_USD_MAX, where)
                _check_times(period, where)


def _check_credit(card: CreditCard) -> None:
    for name, choices in _CHOICES.items():
        if getattr(card, name) not in choices:
            raise _refusal(name, f"must be {' or '.join(choices)}")
    face_value = _read_number(card.face_value_usd, 10**9, "face_value_usd")
    markup = _read_number(card.token_markup, 10**9, "token_markup")
    if not face_value:
        raise _refusal("face_value_usd", "must be more than 0")
    if Fraction(markup) / Fraction(face_value) > CREDITS_PER_USD_MAX:
        raise _refusal(
            "token_markup", f"divided by face_value_usd may be at most {CREDITS_PER_USD_MAX}"
        )
    _read_number(card.tool_call_credits, TOOL_CREDITS_MAX, "tool_call_credits")
    for tool, text in card.tool_credits.items():
        _read_number(text, TOOL_CREDITS_MAX, f"tool_credits.{tool}")
    _read_number(card.runtime_credits_per_second, RUNTIME_CREDITS_MAX, "runtime_credits_per_second")
    for model, rates in card.models.items():
        _check_prices(rates, PRICE_CREDITS_MAX, f"models.{model}")


def _check_prices(rates: Mapping[str, Price], most: int, field: str) -> None:
    for name, price in rates.items():
        where = f"{field}.{name}"
        if name != "request" and name not in TOKEN_CLASSES:
            raise _refusal(where, f"a price is of {', '.join((*TOKEN_CLASSES, 'request'))}")
        for above, text in [(0, price)] if isinstance(price, str) else price:
            if not 0 <= above <= TOKENS_MAX:
                raise _refusal(where, f"a tier begins at 0 to {TOKENS_MAX} tokens")
            _read_number(text, REQUESTS_PRICE_MAX if name == "request" else most, where)


def _read_number(text: str, most: int, field: str) -> Decimal:
    if not _DECIMAL.fullmatch(text) or (number := Decimal(text)) > most:
        raise _refusal(
            field, f'must be decimal text such as "0.05", from 0 to {most}, at most 18 decimals'
        )
    return number


def _check_clause(clause: Clause | None, field: str) -> None:
    try:
        compile_clause(clause)
    except (InvalidInput, re.error, AttributeError, TypeError, RecursionError) as error:
        raise _refusal(field, f"is not a match clause: {error}") from error


def _check_times(period: PricePeriod, field: str) -> None:
    try:
        Period(period, field)
    except (ValueError, OverflowError) as error:
        raise _refusal(field, f"bad from_date or daily: {error}") from error
