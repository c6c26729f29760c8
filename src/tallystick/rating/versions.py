"""Rate card versions compiled for rating, and which one is in force for whom and when.

Models are looked up once per (provider, model, tier) and remembered.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec

from tallystick.errors import InvariantBroken
from tallystick.rating.cards import (
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
from tallystick.rating.vector import Integers

_FALLBACK_CLASS = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "reasoning": "output",
}
"""A class without a price of its own is billed as this one."""

_MICRO = Decimal(10**6)
Tiers = tuple[tuple[int, int], ...]


class Model:
    """A model compiled for rating: periods and variants with complete rates."""

    def __init__(self, prices: ModelPrices, context: Mapping[str, str]) -> None:
        self._periods = [Period(period, prices.id) for period in prices.prices]
        self._variants = [
            compiled
            for compiled in (Period(variant, prices.id) for variant in prices.variants)
            if all(context.get(name) == value for name, value in compiled.when.items())
        ]
        self.has_tier = any("service_tier" in one.when for one in self._variants)
        """Whether the service tier has prices of its own."""
        is_fixed = not self._variants and len(self._periods) == 1 and self._periods[0].is_always
        self.fixed_rates = _complete(self._periods[0].rates) if is_fixed else None
        """Rates that hold at every time, when there are such."""

    def rates_at(self, at: int) -> dict[str, Tiers]:
        """Rates by token class at an instant; missing classes filled by their fallback."""
        if self.fixed_rates is not None:
            return self.fixed_rates
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


class CostVersion:
    """A cost card compiled: finds models, remembers what it found."""

    def __init__(self, version: RateCardVersion) -> None:
        self.version_id = version.version_id
        self._providers = msgspec.json.decode(version.content, type=CostCard).providers
        self._by_id = {provider.id: provider for provider in self._providers}
        self._found: dict[tuple[str, str, str, bool], Model | None] = {}

    def find(self, provider: str, model: str, tier: str, is_batch: bool) -> Model | None:
        """Return the compiled model, or None when the card does not know it."""
        key = (provider, model, tier, is_batch)
        try:
            return self._found[key]
        except KeyError:
            pass
        found = self._search(provider.lower().strip(), model.lower())
        context = {"processing": "batch"} if is_batch else {}
        context |= {"service_tier": tier, "speed": tier}  # fast mode is a tier of its calls
        compiled = Model(found, context) if found else None
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


class CreditVersion:
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


class Timelines:
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

    def has_own(self, tenant_id: str) -> bool:
        """Whether a tenant has versions of its own."""
        return tenant_id in self._by_tenant

    def find_one(self, tenant_id: str, occurred: Integers, received: Integers) -> Any:
        """The version that rates all of these events of a tenant; None when several might.

        A later time, of the event or of its receipt, never finds an earlier version: what
        the first and the last moment agree on holds in between.
        """
        first = self.find(tenant_id, int(occurred.min()), int(received.min()))
        last = self.find(tenant_id, int(occurred.max()), int(received.max()))
        return first if first is last else None
