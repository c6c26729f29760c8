"""What calls tell afterwards: how prompt caching pays, and how much is held for what is used.

Break-even: a token written to the cache costs more than plain input, a token read costs
less. Writes pay once each written token was read `break_even_reads` times; reads per write
below that are waste.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tallystick.enforcement.calls.facts import CallFacts
from tallystick.enforcement.calls.store import CallStore, HoldRatio
from tallystick.errors import InvalidInput
from tallystick.rating import CallRates, Rater
from tallystick.units import CREDIT, USD, format_amount

DIMENSIONS = {
    "feature": "feature",
    "team": "team",
    "product": "product",
    "workflow": "workflow",
    "user": "user_id",
    "key": "JSONExtractString(attrs, 'tallystick_key')",
}
"""What caching is shown by: name -> expression over facts."""

_YOCTO_PER_NANO = 10**15


class CallInsights:
    """Reads facts and the ledger; changes nothing."""

    def __init__(
        self, facts: CallFacts, store: CallStore, rater: Callable[[], Awaitable[Rater]]
    ) -> None:
        """`rater` gives the current rater."""
        self._facts = facts
        self._store = store
        self._rater = rater

    async def cache(
        self, tenant_id: str, from_at: int, to_at: int, by: str
    ) -> list[dict[str, Any]]:
        """How prompt caching paid, by model and one dimension."""
        if by not in DIMENSIONS:
            raise InvalidInput(f"by is one of {', '.join(DIMENSIONS)}", field="by")
        rater = await self._rater()
        rows = await asyncio.to_thread(
            self._facts.query_cache, tenant_id, from_at, to_at, DIMENSIONS[by]
        )
        return [
            cache_row(
                row, by, rater.rates_of(tenant_id, row["provider"], row["model"], "", False, to_at)
            )
            for row in rows
        ]

    async def holds(self, tenant_id: str) -> list[dict[str, Any]]:
        """What calls held for what they cost, by model."""
        rows = await asyncio.to_thread(self._store.load_hold_ratio, tenant_id)
        return [hold_row(row) for row in rows]


def cache_row(row: dict[str, Any], by: str, rates: CallRates | None) -> dict[str, Any]:
    """One line of the cache report."""
    read = int(row["tokens_cache_read"])
    short, long = int(row["tokens_cache_write_5m"]), int(row["tokens_cache_write_1h"])
    tokens_input = int(row["tokens_input"])
    shown: dict[str, Any] = {
        "provider": row["provider"],
        "model": row["model"],
        by: row["scope"],
        "calls": int(row["calls"]),
        "calls_that_read": int(row["calls_that_read"]),
        "tokens_input": tokens_input,
        "tokens_cache_read": read,
        "tokens_cache_write": short + long,
        "hit_rate": read / tokens_input if tokens_input else 0.0,
        "reads_per_write": read / (short + long) if short + long else None,
    }
    price = {name: tiers[-1][1] for name, tiers in rates.cost.items()} if rates else {}
    if "input" in price:
        plain = price["input"]
        saved = read * (plain - price["cache_read"])
        paid = short * (price["cache_write"] - plain) + long * (price["cache_write_1h"] - plain)
        per_read = plain - price["cache_read"]
        shown["saved_usd"] = _usd(saved)
        shown["extra_paid_for_writes_usd"] = _usd(paid)
        shown["net_saved_usd"] = _usd(saved - paid)
        shown["write_waste_usd"] = _usd(max(paid - saved, 0))
        written = short + long
        shown["break_even_reads"] = paid / written / per_read if written and per_read > 0 else None
    return shown


def _usd(yocto: int) -> str:
    return format_amount(yocto // _YOCTO_PER_NANO, USD)


def hold_row(row: HoldRatio) -> dict[str, Any]:
    """One line of the report on holds."""
    return {
        "provider": row.provider,
        "model": row.model,
        "calls": row.calls,
        "held": format_amount(row.held_units, CREDIT),
        "used": format_amount(row.captured_units, CREDIT),
        "hold_ratio": row.held_units / row.captured_units if row.captured_units else None,
        "calls_above_hold": row.above_hold,
        "calls_not_paid_in_full": row.short,
    }
