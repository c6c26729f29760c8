"""The estimate of a call is never below what any usage within its bounds costs."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tallystick.catalog.service import SEED_FILE
from tallystick.enforcement.calls import Usage
from tallystick.enforcement.calls.estimate import plan_estimate, rate_usage
from tallystick.enforcement.calls.outputs import OutputGuess
from tallystick.rating import CostCard, CreditCard, RateCardVersion, Rated, Rater

_SEED = files("tallystick.catalog").joinpath(SEED_FILE).read_bytes()
_CARD = msgspec.json.decode(_SEED, type=CostCard)
_CREDITS = msgspec.json.encode(
    CreditCard(
        token_markup="1.37",
        models={"gpt-4o": {"input": "300", "output": "1200"}},
        tool_credits={"web_search": "1.25"},
    )
)
_RATER = Rater(
    [
        RateCardVersion(1, "cost", "", 0, 0, _SEED),
        RateCardVersion(2, "credit", "", 0, 0, _CREDITS),
    ]
)
_PRICED = [
    (provider.id, model.match["equals"])
    for provider in _CARD.providers
    for model in provider.models
    if "equals" in model.match
] + [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")]
_WITH_AUDIO = [
    (provider.id, model.match["equals"])
    for provider in _CARD.providers
    for model in provider.models
    if "equals" in model.match and any("audio" in one.when.values() for one in model.variants)
] + [("google", "gemini-2.5-flash"), ("openai", "gpt-audio"), ("openai", "gpt-audio-mini")]
_NOW = 1_795_000_000_000_000
_tokens = st.integers(0, 600_000)


@st.composite
def _cases(draw: Any, has_audio: bool = False) -> tuple[Any, int, int, bool, Usage, bool]:
    tokens_input, tokens_output = draw(_tokens), draw(_tokens)
    has_cache_write = draw(st.booleans())
    used_input = draw(st.integers(0, tokens_input))
    rest = used_input
    parts = []
    for may_be in (True, has_cache_write, has_cache_write):
        part = draw(st.integers(0, rest)) if may_be else 0
        rest -= part
        parts.append(part)
    used_output = draw(st.integers(0, tokens_output))
    usage = Usage(
        tokens_input=used_input,
        tokens_output=used_output,
        tokens_cache_read=parts[0],
        tokens_cache_write_5m=parts[1],
        tokens_cache_write_1h=parts[2],
        tokens_reasoning=draw(st.integers(0, used_output)),
        tokens_input_audio=draw(st.integers(0, used_input)) if has_audio else 0,
        tokens_output_audio=draw(st.integers(0, used_output)) if has_audio else 0,
    )
    model = draw(st.sampled_from(_WITH_AUDIO if has_audio else _PRICED))
    return model, tokens_input, tokens_output, has_cache_write, usage, draw(st.booleans())


@settings(max_examples=300, deadline=None)
@given(_cases(), st.sampled_from(["", "flex", "priority"]), st.integers(0, 86_400))
def test_no_usage_within_bounds_costs_more_than_its_estimate(
    case: tuple[tuple[str, str], int, int, bool, Usage, bool], tier: str, second: int
) -> None:
    (provider, model), tokens_input, tokens_output, has_cache_write, usage, is_batch = case
    at = _NOW + second * 1_000_000
    rates = _RATER.rates_of("acme", provider, model, tier, is_batch, at)
    assume(rates is not None)
    assert rates is not None
    estimate = plan_estimate(
        rates,
        tokens_input=tokens_input,
        tokens_output=tokens_output,
        has_cache_write=has_cache_write,
        tools={"web_search": 2},
    )
    rated = rate_usage(
        _RATER,
        usage,
        tenant_id="acme",
        provider=provider,
        model=model,
        service_tier=tier,
        is_batch=is_batch,
        at=at,
    )
    assert rated.cost_units <= estimate.usd_units
    tools = _RATER.tool_units("acme", {"web_search": 2}, at)
    assert rated.credit_units + tools <= estimate.credit_units


def _rated(usage: Usage, provider: str, model: str, is_batch: bool, at: int) -> Rated:
    return rate_usage(
        _RATER,
        usage,
        tenant_id="acme",
        provider=provider,
        model=model,
        service_tier="",
        is_batch=is_batch,
        at=at,
    )


@settings(max_examples=150, deadline=None)
@given(_cases(has_audio=True), st.integers(0, 86_400))
def test_no_call_with_sound_costs_more_than_its_estimate(
    case: tuple[tuple[str, str], int, int, bool, Usage, bool], second: int
) -> None:
    (provider, model), tokens_input, tokens_output, has_cache_write, usage, is_batch = case
    at = _NOW + second * 1_000_000
    rates = _RATER.rates_of("acme", provider, model, "", is_batch, at)
    audio = _RATER.rates_of("acme", provider, model, "audio", is_batch, at)
    assert rates is not None and audio is not None and audio.has_tier
    estimate = plan_estimate(
        rates,
        tokens_input=tokens_input,
        tokens_output=tokens_output,
        has_cache_write=has_cache_write,
        audio=audio,
    )
    told: dict[str, Any] = {
        "provider": provider,
        "model": model,
        "service_tier": "",
        "is_batch": is_batch,
    }
    rated = rate_usage(_RATER, usage, tenant_id="acme", at=at, **told)
    assert rated.cost_units <= estimate.usd_units
    assert rated.credit_units <= estimate.credit_units


def test_sound_costs_what_the_card_says_of_sound() -> None:
    """gpt-audio: text 2.50 and 10, sound 32 and 64 dollars a million."""
    usage = Usage(
        tokens_input=1_000, tokens_input_audio=600, tokens_output=500, tokens_output_audio=450
    )
    told: dict[str, Any] = {
        "provider": "openai",
        "model": "gpt-audio",
        "service_tier": "",
        "is_batch": False,
    }
    rated = rate_usage(_RATER, usage, tenant_id="acme", at=_NOW, **told)
    assert rated.cost_units == 400 * 2_500 + 600 * 32_000 + 50 * 10_000 + 450 * 64_000


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=120))
@settings(max_examples=50)
def test_a_guess_stays_below_its_ceiling_and_is_ready_after_few_answers(seen: list[int]) -> None:
    guess = OutputGuess(at_first=4096, ceiling=32_768)
    for tokens in seen:
        guess.saw("acme", "m", tokens)
    bound = guess.bound("acme", "m", None)
    assert 0 < bound <= 32_768
    assert guess.bound("acme", "m", 77) == 77
    assert guess.bound("acme", "another", None) == 4096
    if len(seen) < 20:
        assert bound == 4096
