"""Makes the shipped cost card from the package genai-prices.

Run by `make seed` when that package is upgraded; the product itself only reads the file
that this writes, so it never loads the package. Prices are per million tokens; a price a
thousand requests becomes one a million.
"""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tallystick.catalog.service import SEED_FILE
from tallystick.rating.cards import CostCard, ModelPrices, Price, PricePeriod, ProviderPrices

_RATES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
}
_AUDIO_RATES = {
    "input_audio_mtok": "input",
    "output_audio_mtok": "output",
    "cache_audio_read_mtok": "cache_read",
}
_AUDIO = {"service_tier": "audio"}
"""What a call used of sound is an event of this tier (enforcement/calls/audio.py)."""


def convert() -> CostCard:
    """Return the pinned package's prices in our form."""
    from genai_prices.data import providers

    return CostCard([_provider(provider) for provider in providers])


def _provider(provider: Any) -> ProviderPrices:
    return ProviderPrices(
        id=provider.id,
        models=[_model(model) for model in provider.models],
        model_match=_clause(provider.model_match),
        provider_match=_clause(provider.provider_match),
        fallback_providers=list(provider.fallback_model_providers or []),
    )


def _model(model: Any) -> ModelPrices:
    prices = model.prices if isinstance(model.prices, list) else None
    periods = (
        [_period(price.prices, price.constraint, {}) for price in prices]
        if prices is not None
        else [_period(model.prices, None, {})]
    )
    variants = [
        _period(variant.prices, variant.constraint, dict(variant.when))
        for variant in model.price_variants or []
    ]
    return ModelPrices(
        model.id, _clause(model.match) or {}, periods, [*_audio_variants(model), *variants]
    )


def _audio_variants(model: Any) -> list[PricePeriod]:
    """Prices of sound; the latest first, as the first variant that applies wins."""
    dated = model.prices if isinstance(model.prices, list) else []
    found = [_period(price.prices, price.constraint, _AUDIO, _AUDIO_RATES) for price in dated]
    if not dated:
        found = [_period(model.prices, None, _AUDIO, _AUDIO_RATES)]
    return [period for period in reversed(found) if period.rates]


def _period(
    prices: Any, constraint: Any, when: dict[str, str], names: dict[str, str] = _RATES
) -> PricePeriod:
    daily = None
    if (start := getattr(constraint, "start_time", None)) is not None:
        daily = (start.strftime("%H:%M:%S"), constraint.end_time.strftime("%H:%M:%S"))
    start_date = getattr(constraint, "start_date", None)
    rates: dict[str, Price] = {
        ours: _price(price)
        for theirs, ours in names.items()
        if (price := getattr(prices, theirs, None)) is not None
    }
    if names is _RATES and (per_thousand := getattr(prices, "requests_kcount", None)) is not None:
        rates["request"] = _text(per_thousand * 1000)
    return PricePeriod(rates, start_date.isoformat() if start_date else "", daily, when)


def _price(price: Any) -> Price:
    if isinstance(price, Decimal):
        return _text(price)
    return [(0, _text(price.base)), *((tier.start, _text(tier.price)) for tier in price.tiers)]


def _text(price: Decimal) -> str:
    return format(price.normalize(), "f")


def _clause(clause: Any) -> dict[str, Any] | None:
    if clause is None:
        return None
    name, value = next(iter(vars(clause).items()))
    if name in ("or_", "and_"):
        return {name.rstrip("_"): [_clause(part) for part in value]}
    return {name: value}


def main() -> None:
    """Write the seed file beside this module (or where the first argument says)."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name(SEED_FILE)
    target.write_bytes(msgspec.json.format(msgspec.json.encode(convert()), indent=1) + b"\n")


if __name__ == "__main__":
    main()
