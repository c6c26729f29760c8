"""A rate card that could stop a follower is refused when it is recorded, field by field.

What is accepted rates the largest event that the door lets in within 64 bits.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import msgspec
import pytest

from tallystick.bounds import AMOUNT_MAX, LATENCY_MS_MAX, TOKENS_MAX
from tallystick.catalog.service import SEED_FILE
from tallystick.errors import InvalidInput
from tallystick.rating import CostCard, CreditCard, RateCardVersion, Rater, check_card
from tallystick.rating.checks import (
    CREDITS_PER_USD_MAX,
    PRICE_CREDITS_MAX,
    PRICE_USD_MAX,
    REQUESTS_PRICE_MAX,
    RUNTIME_CREDITS_MAX,
    TOOL_CREDITS_MAX,
)
from tests.unit.test_rating import rate

WRONG_NUMBERS = ("NaN", "Infinity", "1e30", "1e999999999", "-5", "99999999999999999999", "1/3", "")


def cost_content(**model: Any) -> dict[str, Any]:
    prices = {"prices": [{"rates": {"input": "1"}}], "match": {"equals": "m"}, **model}
    return {"providers": [{"id": "p", "models": [{"id": "m", **prices}]}]}


@pytest.mark.parametrize("text", WRONG_NUMBERS)
@pytest.mark.parametrize(
    "field",
    ["face_value_usd", "token_markup", "tool_call_credits", "runtime_credits_per_second"],
)
def test_a_number_of_a_credit_card_is_plain_and_bounded(field: str, text: str) -> None:
    with pytest.raises(InvalidInput, match=f"content.{field}") as refused:
        check_card(msgspec.convert({field: text}, CreditCard))
    assert (refused.value.code, refused.value.field) == ("bad_rate_card", f"content.{field}")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"face_value_usd": "0"}, "face_value_usd"),
        ({"face_value_usd": "0.000001"}, "token_markup"),
        ({"tool_credits": {"search": "-1"}}, "tool_credits.search"),
        ({"models": {"m": {"input": "NaN"}}}, "models.m.input"),
        ({"models": {"m": {"imput": "1"}}}, "models.m.imput"),
        ({"attempts": "frist"}, "attempts"),
    ],
)
def test_what_else_a_credit_card_may_not_say(content: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_card(msgspec.convert(content, CreditCard))
    assert refused.value.field == f"content.{field}"


@pytest.mark.parametrize(
    "model",
    [
        {"prices": [{"rates": {"input": "NaN"}}]},
        {"prices": [{"rates": {"output": "-1"}}]},
        {"prices": [{"rates": {"input": [[0, "1"], [200_000, "1e30"]]}}]},
        {"prices": [{"rates": {"input": [[-1, "1"]]}}]},
        {"prices": [{"rates": {"input": "1"}, "from_date": "soon"}]},
        {"prices": [{"rates": {"input": "1"}, "daily": ["a", "b"]}]},
        {"variants": [{"rates": {"input": "99999999999999999999"}}]},
        {"match": {"regex": "("}},
        {"match": {"or": "m"}},
        {"match": {"or": [{"equals": 5}]}},
        {"match": {}},
    ],
)
def test_a_cost_card_that_cannot_rate_is_refused(model: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"content\.p\.m") as refused:
        check_card(msgspec.convert(cost_content(**model), CostCard))
    assert refused.value.code == "bad_rate_card"


def test_the_shipped_cards_pass() -> None:
    seed = files("tallystick.catalog").joinpath(SEED_FILE).read_bytes()
    check_card(msgspec.json.decode(seed, type=CostCard))
    check_card(CreditCard())


def test_the_largest_event_under_the_dearest_cards_stays_within_64_bits() -> None:
    price, request = str(PRICE_USD_MAX), str(REQUESTS_PRICE_MAX)
    own = {"input": str(PRICE_CREDITS_MAX), "output": str(PRICE_CREDITS_MAX), "request": request}
    dearest = {"input": price, "output": price, "request": request}
    cost = msgspec.convert(
        cost_content(prices=[{"rates": dearest}], match={"contains": ""}), CostCard
    )
    credit = CreditCard(
        face_value_usd="0.000005",
        token_markup="1",
        models={"own": own},
        tool_call_credits=str(TOOL_CREDITS_MAX),
        runtime_credits_per_second=str(RUNTIME_CREDITS_MAX),
    )
    assert CREDITS_PER_USD_MAX == 200_000
    check_card(cost)
    check_card(credit)
    rater = Rater(
        [
            RateCardVersion(number, kind, "", 0, 0, msgspec.json.encode(card))
            for number, kind, card in ((1, "cost", cost), (2, "credit", credit))
        ]
    )
    tokens = {"provider": "p", "tokens_input": TOKENS_MAX, "tokens_output": TOKENS_MAX}
    for event in (
        {**tokens, "model": "m"},
        {**tokens, "model": "own"},
        {"event_type": "tool_call_finished"},
        {"event_type": "attempt_finished", "latency_ms": float(LATENCY_MS_MAX)},
        {"event_type": "cost", "cost_amount": str(AMOUNT_MAX), "cost_currency": "USD"},
    ):
        rated = rate(rater, **event)
        assert 0 < rated["credit_units"] < 2**62
        assert 0 <= rated["cost_units"] < 2**62
