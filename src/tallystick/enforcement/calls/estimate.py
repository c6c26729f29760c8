"""What a call may cost at most, and what it cost in the end. Pure.

The bound holds for every usage within what was asked: input at the dearest rate it can be
billed at (cached or not, written to the cache when that was asked for), output at the dearer
of output and reasoning, at the dearest tier that the input can reach, every tool used as
often as allowed. Bounds round up; the actual price rounds once, half to even, as facts are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tallystick.enforcement.calls.audio import AUDIO_TIER, split_audio
from tallystick.enforcement.calls.model import Usage
from tallystick.rating import CallRates, Rated, Rater
from tallystick.rating.cards import YOCTO_PER_MICRO, YOCTO_PER_NANO
from tallystick.usage.model import TOKEN_COUNTS

_READ = ("input", "cache_read")
_WRITTEN = ("cache_write", "cache_write_1h")
_OUTPUT = ("output", "reasoning")


_STANDARD_TIERS = frozenset({"", "default", "standard"})
"""What providers call the tier that has no name of its own."""


class Estimate(NamedTuple):
    """The most that a call may cost."""

    credit_units: int
    """CREDIT/6."""
    usd_units: int
    """USD/9."""
    tokens: int


def plan_estimate(
    rates: CallRates,
    *,
    tokens_input: int,
    tokens_output: int,
    has_cache_write: bool = False,
    audio: CallRates | None = None,
    standard: CallRates | None = None,
    tools: Mapping[str, int] | None = None,
) -> Estimate:
    """Bound the cost of a call of at most so many tokens and uses of tools.

    `audio` are the prices of sound, when there may be some: any token may be one. `standard`
    are those of no tier, when one was asked for: the provider may serve it so.
    """

    def most(prices: Mapping[str, Any]) -> int:
        read = (*_READ, *_WRITTEN) if has_cache_write else _READ
        return tokens_input * _dearest(prices, read, tokens_input) + tokens_output * _dearest(
            prices, _OUTPUT, tokens_input
        )

    cost = rates.cost
    for others in (audio, standard):
        cost = cost if others is None else _dearer(cost, others.cost)
    yocto = most(cost)
    if rates.own_credits is not None:
        credit_units = _divide_up(most(rates.own_credits), YOCTO_PER_MICRO)
    else:
        credit_units = _divide_up(
            yocto * rates.per_usd_numerator, YOCTO_PER_MICRO * rates.per_usd_denominator
        )
    for tool, uses in (tools or {}).items():
        credit_units += uses * rates.tool_units(tool, "")
    usd_units = _divide_up(yocto, YOCTO_PER_NANO)
    if audio is not None:  # the part that is sound is rounded by itself
        credit_units, usd_units = credit_units + 1, usd_units + 1
    return Estimate(credit_units, usd_units, tokens_input + tokens_output)


def _dearer(prices: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """The tiers of both, by class."""
    names = prices.keys() | others.keys()
    return {name: (*prices.get(name, ()), *others.get(name, ())) for name in names}


def _dearest(prices: Mapping[str, Any], classes: Iterable[str], tokens_input: int) -> int:
    """The highest price a token of these classes, over the tiers that the input can reach."""
    return max(
        (
            yocto
            for name in classes
            for above, yocto in prices.get(name, ())
            if above < tokens_input or above == 0
        ),
        default=0,
    )


def _divide_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def tier_served(asked: str, usage: Usage) -> str:
    """The tier that a call is priced by: the one that served, if that is known.

    >>> tier_served("flex", Usage(service_tier="default")), tier_served("flex", Usage())
    ('', 'flex')
    """
    if usage.service_tier is None:
        return asked
    return "" if usage.service_tier in _STANDARD_TIERS else usage.service_tier


def rate_usage(
    rater: Rater,
    usage: Usage,
    *,
    tenant_id: str,
    provider: str,
    model: str,
    service_tier: str,
    is_batch: bool,
    at: int,
) -> Rated:
    """Price a call's usage as the rater will price its events."""

    def rate(part: Usage, tier: str) -> Rated:
        columns = _columns(part, tenant_id, provider, model, tier, is_batch, at)
        return rater.rate_one("token_usage", 0, columns)

    text, audio = split_audio(usage)
    rated = rate(text, service_tier)
    if audio is None:
        return rated
    more = rate(audio, AUDIO_TIER)
    return rated._replace(
        cost_units=rated.cost_units + more.cost_units,
        credit_units=rated.credit_units + more.credit_units,
    )


def _columns(
    usage: Usage,
    tenant_id: str,
    provider: str,
    model: str,
    service_tier: str,
    is_batch: bool,
    at: int,
) -> dict[str, list[Any]]:
    """A part of a call as columns of one row."""
    columns: dict[str, list[Any]] = {name: [getattr(usage, name)] for name in TOKEN_COUNTS}
    columns |= {
        "tenant_id": [tenant_id],
        "occurred_at": [at],
        "received_at": [at],
        "usage_scope": ["leaf"],
        "usage_quality": [usage.quality],
        "provider": [provider],
        "model": [model],
        "service_tier": [service_tier],
        "is_batch": [is_batch],
    }
    return columns
