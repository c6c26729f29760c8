"""The rater: prices facts by the versions in force at their time.

Models are looked up once per (provider, model, tier) and remembered; a priced call is then
a few integer products and one rounding (half to even) each to USD/9 and CREDIT/6.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import msgspec

from tallystick.errors import InvariantBroken
from tallystick.rating.cards import (
    TOKEN_CLASSES,
    YOCTO_PER_MICRO,
    YOCTO_PER_NANO,
    CostCard,
    CreditCard,
    ModelPrices,
    Period,
    ProviderPrices,
    RateCardVersion,
    compile_clause,
    compile_price,
)
from tallystick.rating.charges import ChargePolicy

_FALLBACK_CLASS = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
}
"""A class without a price of its own is billed as this one."""

_NANO = Decimal(10**9)
_MICRO = Decimal(10**6)
Tiers = tuple[tuple[int, int], ...]
RATED_COLUMNS = (
    "cost_units",
    "cost_quality",
    "credit_units",
    "cost_version",
    "credit_version",
)


class Rated(NamedTuple):
    """Cost in USD/9, its quality, credits in CREDIT/6, and the versions that said so."""

    cost_units: int = 0
    cost_quality: str = "none"
    credit_units: int = 0
    cost_version: int = 0
    credit_version: int = 0


UNRATED = Rated()


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide non-negative integers, rounding to nearest, ties to even.

    >>> [divide_half_even(n, 2) for n in (1, 2, 3, 5)]
    [0, 1, 2, 2]
    """
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


class _Model:
    """A model compiled for rating: periods and variants with complete rates."""

    def __init__(self, prices: ModelPrices, context: Mapping[str, str]) -> None:
        self._periods = [Period(period, prices.id) for period in prices.prices]
        self._variants = [
            compiled
            for compiled in (Period(variant, prices.id) for variant in prices.variants)
            if all(context.get(name) == value for name, value in compiled.when.items())
        ]
        is_fixed = not self._variants and len(self._periods) == 1 and self._periods[0].is_always
        self._fixed = _complete(self._periods[0].rates) if is_fixed else None

    def rates_at(self, at: int) -> dict[str, Tiers]:
        """Rates by token class at an instant; missing classes filled by their fallback."""
        if self._fixed is not None:
            return self._fixed
        if not self._periods:
            return {}
        base = next(
            (period.rates for period in reversed(self._periods) if period.applies(at)),
            self._periods[0].rates,
        )
        overrides: dict[str, Tiers] = {}
        for variant in self._variants:
            if variant.applies(at):
                for name, tiers in variant.rates.items():
                    overrides.setdefault(name, tiers)
        return _complete({**base, **overrides})


def _complete(rates: Mapping[str, Tiers]) -> dict[str, Tiers]:
    complete = dict(rates)
    for name, other in _FALLBACK_CLASS.items():
        if name not in complete and other in complete:
            complete[name] = complete[other]
    return complete


class _CostVersion:
    """A cost card compiled: finds models, remembers what it found."""

    def __init__(self, version: RateCardVersion) -> None:
        self.version_id = version.version_id
        self._providers = msgspec.json.decode(version.content, type=CostCard).providers
        self._by_id = {provider.id: provider for provider in self._providers}
        self._found: dict[tuple[str, str, str, bool], _Model | None] = {}

    def find(self, provider: str, model: str, tier: str, is_batch: bool) -> _Model | None:
        """Return the compiled model, or None when the card does not know it."""
        key = (provider, model, tier, is_batch)
        try:
            return self._found[key]
        except KeyError:
            pass
        found = self._search(provider.lower().strip(), model.lower())
        context = {"processing": "batch"} if is_batch else {}
        compiled = _Model(found, {**context, "service_tier": tier}) if found else None
        if len(self._found) < 100_000:
            self._found[key] = compiled
        return compiled

    def _search(self, provider_name: str, model_name: str) -> ModelPrices | None:
        provider = self._search_provider(provider_name, model_name)
        if provider is None:
            return None
        for candidate in [provider.id, *provider.fallback_providers]:
            for model in self._by_id[candidate].models if candidate in self._by_id else ():
                if compile_clause(model.match)(model_name):
                    return model
        return None

    def _search_provider(self, provider_name: str, model_name: str) -> ProviderPrices | None:
        if provider_name in self._by_id:
            return self._by_id[provider_name]
        for provider in self._providers:
            clause = provider.provider_match if provider_name else provider.model_match
            if compile_clause(clause)(provider_name or model_name):
                return provider
        return None


class _CreditVersion:
    """A credit card compiled to integers."""

    def __init__(self, version: RateCardVersion) -> None:
        card = msgspec.json.decode(version.content, type=CreditCard)
        self.version_id = version.version_id
        per_usd = Fraction(card.token_markup) / Fraction(card.face_value_usd)
        self.per_usd_numerator = per_usd.numerator
        self.per_usd_denominator = per_usd.denominator
        self.models = {
            model: _complete({name: compile_price(text, model) for name, text in rates.items()})
            for model, rates in card.models.items()
        }
        self._tool_units = {tool: _micro(text) for tool, text in card.tool_credits.items()}
        self._tool_default = _micro(card.tool_call_credits)
        self._is_failed_free = card.failed_tool_calls == "free"
        self._runtime = Decimal(card.runtime_credits_per_second)
        self.policy = ChargePolicy(card.attempts, card.failed_runs, card.late_events)

    def tool_units(self, tool: str, error_code: str) -> int:
        """Credits of one tool call."""
        if error_code and self._is_failed_free:
            return 0
        return self._tool_units.get(tool, self._tool_default)

    def runtime_units(self, latency_ms: float) -> int:
        """Credits of an attempt's runtime."""
        exact = Decimal(str(latency_ms)) * self._runtime * 1000
        return int(exact.to_integral_value("ROUND_HALF_EVEN"))


def _micro(text: str) -> int:
    return int((Decimal(text) * _MICRO).to_integral_value("ROUND_HALF_EVEN"))


class _Timeline:
    """Versions of one kind for one tenant, in the order in which they take over."""

    def __init__(self, versions: Sequence[RateCardVersion], compiled: type[Any]) -> None:
        ordered = sorted(versions, key=lambda one: (one.effective_at, one.recorded_at))
        self._starts = [version.effective_at for version in ordered]
        self._recorded = [version.recorded_at for version in ordered]
        self._versions = [compiled(version) for version in ordered]
        self.first = self._versions[0]

    def find(self, occurred_at: int, received_at: int) -> Any:
        """The version in force that was known when the event came; None before the first."""
        index = bisect_right(self._starts, occurred_at) - 1
        while index >= 0 and self._recorded[index] > received_at:
            index -= 1
        return self._versions[index] if index >= 0 else None


class _Timelines:
    """Versions of one kind: a tenant's own, then everybody's."""

    def __init__(self, versions: Sequence[RateCardVersion], compiled: type[Any]) -> None:
        by_tenant: dict[str, list[RateCardVersion]] = {}
        for version in versions:
            by_tenant.setdefault(version.tenant_id, []).append(version)
        self._by_tenant = {tenant: _Timeline(own, compiled) for tenant, own in by_tenant.items()}
        self._everybody = self._by_tenant.pop("", None)

    def find(self, tenant_id: str, occurred_at: int, received_at: int) -> Any:
        """The version that rates an event; the very first one also rates what came before it."""
        own = self._by_tenant.get(tenant_id)
        found = own.find(occurred_at, received_at) if own is not None else None
        if found is not None:
            return found
        if self._everybody is None:
            raise InvariantBroken("no rate card of a kind was seeded")
        found = self._everybody.find(occurred_at, received_at)
        return found if found is not None else self._everybody.first


class Rater:
    """Rates events by a fixed set of versions; make a new one when versions are added.

    What rates an event is a function of the event and of the versions recorded by the time it
    was received: rating it again, in a replay, gives the same. A version that is recorded
    later with an earlier effective time reaches older events by a backfill only.
    """

    def __init__(self, versions: Sequence[RateCardVersion]) -> None:
        self.stamp = max((version.version_id for version in versions), default=0)
        by_kind: dict[str, list[RateCardVersion]] = {"cost": [], "credit": []}
        for version in versions:
            by_kind[version.kind].append(version)
        self._cost = _Timelines(by_kind["cost"], _CostVersion)
        self._credit = _Timelines(by_kind["credit"], _CreditVersion)

    def policy_at(self, tenant_id: str, at: int, known_at: int) -> ChargePolicy:
        """The attempts policy of a tenant's credit card at an instant, as known at another."""
        policy: ChargePolicy = self._credit.find(tenant_id, at, known_at).policy
        return policy

    def rate_columns(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """Rate events given as columns by field name; return columns of RATED_COLUMNS."""
        rated = [
            self._rate(kind, index, columns) if kind in _RATED_TYPES else UNRATED
            for index, kind in enumerate(columns["event_type"])
        ]
        if not rated:
            return {name: [] for name in RATED_COLUMNS}
        return dict(zip(RATED_COLUMNS, map(list, zip(*rated, strict=True)), strict=True))

    def _rate(self, kind: str, index: int, columns: Mapping[str, Sequence[Any]]) -> Rated:
        tenant, at = columns["tenant_id"][index], columns["occurred_at"][index]
        received = columns["received_at"][index]
        credit: _CreditVersion = self._credit.find(tenant, at, received)
        if kind == "token_usage":
            if columns["usage_scope"][index] == "aggregate":
                return UNRATED
            cost: _CostVersion = self._cost.find(tenant, at, received)
            return _rate_tokens(index, columns, at, cost, credit)
        if kind == "tool_call_finished":
            units = credit.tool_units(columns["tool"][index], columns["error_code"][index])
            return Rated(0, "none", units, 0, credit.version_id)
        if kind == "attempt_finished":
            latency = columns["latency_ms"][index]
            if latency is None:
                return UNRATED
            return Rated(0, "none", credit.runtime_units(latency), 0, credit.version_id)
        return _rate_stated_cost(
            columns["cost_amount"][index], columns["cost_currency"][index], credit
        )


_RATED_TYPES = frozenset(("token_usage", "tool_call_finished", "attempt_finished", "cost"))


def _rate_tokens(
    index: int,
    columns: Mapping[str, Sequence[Any]],
    at: int,
    cost: _CostVersion,
    credit: _CreditVersion,
) -> Rated:
    name = columns["model"][index]
    model = cost.find(
        columns["provider"][index],
        name,
        columns["service_tier"][index],
        columns["is_batch"][index],
    )
    amounts = _exclusive_amounts(index, columns)
    quality = "unpriced"
    yocto = 0
    if model is not None:
        yocto, quality = _sum_rates(model.rates_at(at), amounts, columns["tokens_input"][index])
    if quality == "exact" and columns["usage_quality"][index] == "estimated":
        quality = "estimated"
    own_rates = credit.models.get(name)
    if own_rates is not None:
        own_yocto, _ = _sum_rates(own_rates, amounts, columns["tokens_input"][index])
        credits_units = divide_half_even(own_yocto, YOCTO_PER_MICRO)
    else:
        credits_units = divide_half_even(
            yocto * credit.per_usd_numerator, YOCTO_PER_MICRO * credit.per_usd_denominator
        )
    return Rated(
        divide_half_even(yocto, YOCTO_PER_NANO),
        quality,
        credits_units,
        cost.version_id,
        credit.version_id,
    )


def _exclusive_amounts(index: int, columns: Mapping[str, Sequence[Any]]) -> tuple[int, ...]:
    """Tokens by class, each token in one class only, in the order of TOKEN_CLASSES."""
    read = columns["tokens_cache_read"][index]
    write = columns["tokens_cache_write_5m"][index]
    write_1h = columns["tokens_cache_write_1h"][index]
    reasoning = columns["tokens_reasoning"][index]
    return (
        columns["tokens_input"][index] - read - write - write_1h,
        columns["tokens_output"][index] - reasoning,
        read,
        write,
        write_1h,
        reasoning,
    )


def _sum_rates(
    rates: Mapping[str, Tiers], amounts: tuple[int, ...], tokens_input: int
) -> tuple[int, str]:
    """Sum amount x rate; "partial" when some class has no rate, "unpriced" when none has."""
    if not rates:
        return 0, "unpriced"
    total = 0
    quality = "exact"
    for name, amount in zip(TOKEN_CLASSES, amounts, strict=True):
        if not amount:
            continue
        tiers = rates.get(name)
        if tiers is None:
            quality = "partial"
            continue
        for above, yocto in tiers:
            if tokens_input > above or above == 0:
                total += amount * yocto
                break
    if (per_request := rates.get("request")) is not None:
        total += per_request[0][1]
    return total, quality


def _rate_stated_cost(amount: str, currency: str, credit: _CreditVersion) -> Rated:
    """A cost that the sender states is taken as it is, in USD only."""
    if currency != "USD" or not amount:
        return Rated(0, "unpriced", 0, 0, credit.version_id)
    exact = Decimal(amount)
    ratio = Decimal(credit.per_usd_numerator) / Decimal(credit.per_usd_denominator)
    return Rated(
        int((exact * _NANO).to_integral_value("ROUND_HALF_EVEN")),
        "exact",
        int((exact * ratio * _MICRO).to_integral_value("ROUND_HALF_EVEN")),
        0,
        credit.version_id,
    )
