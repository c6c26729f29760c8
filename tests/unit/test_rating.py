"""Prices: against genai-prices itself, by tables, and by hand."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from typing import Any

import msgspec
import numpy as np
import pytest

from tallystick.catalog.seed import convert
from tallystick.catalog.service import SEED_FILE
from tallystick.clock import from_datetime
from tallystick.rating import (
    ChargePolicy,
    CreditCard,
    RateCardVersion,
    Rater,
    RunLine,
    plan_run_target,
)

SEED = files("tallystick.catalog").joinpath(SEED_FILE).read_bytes()
VERSIONS = [
    RateCardVersion(1, "cost", "", 0, 0, SEED),
    RateCardVersion(2, "credit", "", 0, 0, msgspec.json.encode(CreditCard())),
]
RATER = Rater(VERSIONS)
DEFAULTS: dict[str, Any] = {
    "event_type": "token_usage",
    "tenant_id": "t",
    "occurred_at": 1_790_000_000_000_000,
    "received_at": 1_790_000_000_000_000,
    "usage_scope": "leaf",
    "usage_quality": "exact",
    "provider": "openai",
    "model": "gpt-4o",
    "service_tier": "",
    "is_batch": False,
    "tokens_input": 0,
    "tokens_output": 0,
    "tokens_cache_read": 0,
    "tokens_cache_write_5m": 0,
    "tokens_cache_write_1h": 0,
    "tokens_reasoning": 0,
    "tool": "",
    "error_code": "",
    "latency_ms": None,
    "cost_amount": "",
    "cost_currency": "",
}


def rate(rater: Rater = RATER, **changes: Any) -> dict[str, Any]:
    rated = rater.rate_columns(
        {name: [value] for name, value in {**DEFAULTS, **changes}.items()}, 1
    )
    return {name: np.asarray(values).tolist()[0] for name, values in rated.items()}


def test_the_shipped_card_is_what_the_pinned_package_says() -> None:
    assert msgspec.json.decode(SEED) == msgspec.json.decode(msgspec.json.encode(convert()))


def test_costs_equal_genai_prices_to_the_nano_dollar() -> None:
    from genai_prices import Usage, calc_price
    from genai_prices.data import providers

    rng = random.Random(7)
    compared = 0
    for provider in providers:
        for model in provider.models:
            if rng.random() > 0.3:
                continue
            given = rng.choice([0, 10, 5000, 250_000, 1_200_000])
            read = rng.randint(0, given)
            write = rng.randint(0, given - read)
            hour = rng.randint(0, write)
            at = datetime(
                2026, rng.randint(1, 11), rng.randint(1, 20), rng.randint(0, 23), tzinfo=UTC
            )
            usage: Any = Usage(
                input_tokens=given,
                output_tokens=700,
                cache_read_tokens=read,
                cache_write_tokens=write,
                cache_write_1h_tokens=hour,
            )
            try:
                price = calc_price(
                    usage,
                    model_ref=model.id,
                    provider_id=provider.id,
                    genai_request_timestamp=at,
                ).total_price
            except (LookupError, ValueError):
                continue
            rated = rate(
                provider=provider.id,
                model=model.id,
                occurred_at=from_datetime(at),
                tokens_input=given,
                tokens_output=700,
                tokens_cache_read=read,
                tokens_cache_write_5m=write - hour,
                tokens_cache_write_1h=hour,
            )
            wanted = int((price * 10**9).to_integral_value("ROUND_HALF_EVEN"))
            assert rated["cost_units"] == wanted, (provider.id, model.id)
            compared += 1
    assert compared > 400


TABLE = [
    ({"tokens_input": 1200, "tokens_output": 250, "tokens_cache_read": 1024}, "0.00422", "exact"),
    ({"tokens_input": 10, "usage_quality": "estimated"}, "0.000025", "estimated"),
    ({"model": "no-such-model", "provider": "nobody", "tokens_input": 10}, "0", "unpriced"),
    ({"usage_scope": "aggregate", "tokens_input": 10}, "0", "none"),
    ({"provider": "", "tokens_input": 1000}, "0.0025", "exact"),
    (
        {"provider": "anthropic", "model": "claude-sonnet-4-5", "tokens_input": 1000}
        | {"tokens_cache_write_5m": 400, "tokens_cache_write_1h": 100},
        "0.0036",
        "exact",
    ),
]


@pytest.mark.parametrize(("usage", "cost", "quality"), TABLE)
def test_costs_by_hand(usage: dict[str, Any], cost: str, quality: str) -> None:
    rated = rate(**usage)
    assert Decimal(rated["cost_units"]) / 10**9 == Decimal(cost)
    assert rated["cost_quality"] == quality
    assert rated["credit_units"] == int(Decimal(cost) * 120 * 10**6)


def test_tools_runtime_and_stated_costs() -> None:
    assert rate(event_type="tool_call_finished", tool="x")["credit_units"] == 50_000
    assert rate(event_type="tool_call_finished", tool="x", error_code="e")["credit_units"] == 0
    assert rate(event_type="attempt_finished", latency_ms=1500.0)["credit_units"] == 15_000
    stated = rate(event_type="cost", cost_amount="0.0000000005", cost_currency="USD")
    assert (stated["cost_units"], stated["credit_units"]) == (0, 0)
    stated = rate(event_type="cost", cost_amount="0.01", cost_currency="USD")
    assert (stated["cost_units"], stated["credit_units"]) == (10_000_000, 1_200_000)
    assert rate(event_type="cost", cost_amount="1", cost_currency="EUR")["cost_quality"] == (
        "unpriced"
    )


def test_a_new_version_rates_only_events_from_its_time_on() -> None:
    later = DEFAULTS["occurred_at"] + 1000
    newer = RateCardVersion(
        3, "credit", "", later, later, msgspec.json.encode(CreditCard(tool_call_credits="1"))
    )
    own = RateCardVersion(
        4, "credit", "vip", 0, later, msgspec.json.encode(CreditCard(tool_call_credits="0"))
    )
    rater = Rater([*VERSIONS, newer, own])
    tool = {"event_type": "tool_call_finished", "received_at": later}
    assert rate(rater, **tool)["credit_units"] == 50_000
    assert rate(rater, **tool, occurred_at=later)["credit_units"] == 1_000_000
    assert rate(rater, **tool, occurred_at=later)["credit_version"] == 3
    assert rate(rater, **tool, tenant_id="vip")["credit_units"] == 0
    earlier = {"event_type": "tool_call_finished", "received_at": later - 1}
    assert rate(rater, **earlier, occurred_at=later)["credit_units"] == 50_000  # not known yet
    assert rate(rater, **earlier, tenant_id="vip")["credit_units"] == 50_000


def test_which_attempts_are_charged() -> None:
    lines = [RunLine(1, 70), RunLine(3, 100), RunLine(2, 5), RunLine(3, 1)]
    assert plan_run_target(lines, run_failed=False, policy=ChargePolicy()).target_units == 101
    everything = ChargePolicy(attempts="all")
    assert plan_run_target(lines, run_failed=True, policy=everything).target_units == 176
    free = ChargePolicy(failed_runs="free")
    assert plan_run_target(lines, run_failed=True, policy=free).target_units == 0
    assert plan_run_target([], run_failed=False, policy=free).target_units == 0
    late = [RunLine(1, 70, 50), RunLine(1, 30)]
    assert plan_run_target(late, run_failed=False, policy=ChargePolicy()).target_units == 100
    lenient = ChargePolicy(late_events="free")
    assert plan_run_target(late, run_failed=False, policy=lenient).target_units == 50
