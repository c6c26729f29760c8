"""What calls cost: prices that are never older than a second, and how long answers are.

Facts are rated by the exact prices of their time; what is said here a second after a price
changed can differ from that, and the run's charge then converges to the facts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from tallystick.bounds import TOKENS_MAX
from tallystick.catalog import Catalog
from tallystick.clock import SECOND, Clock
from tallystick.enforcement.calls.audio import AUDIO_TIER
from tallystick.enforcement.calls.details import Said
from tallystick.enforcement.calls.estimate import (
    Estimate,
    plan_estimate,
    rate_usage,
    tier_served,
)
from tallystick.enforcement.calls.facts import CallFacts
from tallystick.enforcement.calls.model import CallPermit, CallRefused, Usage
from tallystick.enforcement.calls.outputs import OutputGuess
from tallystick.errors import StoreUnavailable, TallystickError
from tallystick.rating import CallRates, Rated, Rater

_FRESH_MICROS = SECOND


class CallSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What of calls can be set."""

    allows_unpriced: bool = False
    """Let calls of models without a price through; they cost nothing until they have one."""
    output_tokens_at_first: int = 4_096
    """Output to hold credit for when a request names no maximum and nothing is known yet."""
    output_tokens_ceiling: int = 32_768
    """The most to hold credit for when a request names no maximum."""


class CallPrices:
    """Prices in memory; belongs to one event loop."""

    def __init__(
        self,
        catalog: Catalog,
        facts: CallFacts,
        clock: Clock,
        settings: CallSettings,
        refresh_more: Callable[[], None],
    ) -> None:
        """`refresh_more` is called in a thread whenever prices are looked up again."""
        self._catalog = catalog
        self._facts = facts
        self._clock = clock
        self._settings = settings
        self._refresh_more = refresh_more
        self.outputs = OutputGuess(
            at_first=settings.output_tokens_at_first, ceiling=settings.output_tokens_ceiling
        )
        self._rater: Rater | None = None
        self._refreshed_at = 0
        self._refreshing: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None

    async def rater(self) -> Rater:
        """The rater, looked up again when it is old; only the first caller ever waits."""
        now = self._clock.now()
        if now - self._refreshed_at >= _FRESH_MICROS and self._refreshing is None:
            self._refreshed_at = now
            self._refreshing = asyncio.create_task(self._refresh())
        if self._rater is None:
            assert self._refreshing is not None
            await asyncio.shield(self._refreshing)
        assert self._rater is not None
        return self._rater

    async def _refresh(self) -> None:
        if self._rater is None:
            self._warming = asyncio.create_task(self._warm_up())
        try:
            await asyncio.to_thread(self._refresh_more)  # before there is a rater, nobody calls
            self._rater = await asyncio.to_thread(self._catalog.refresh_rater, self._rater)
        except TallystickError:
            self._refreshed_at = 0
            if self._rater is None:
                raise
        finally:
            self._refreshing = None

    async def _warm_up(self) -> None:
        """Learn how long answers are from the newest facts; without them it is learned."""
        try:
            found = await asyncio.to_thread(self._facts.query_usual_outputs)
        except StoreUnavailable:
            return
        for tenant_id, model, outputs in found:
            for tokens_output in outputs:
                self.outputs.saw(tenant_id, model, tokens_output)

    def output_bound(self, said: Said) -> int:
        """Output tokens to hold for: the request's own maximum, or what is usual."""
        bound = self.outputs.bound(said.tenant_id, said.model, said.tokens_output_max, said.answers)
        return min(bound, TOKENS_MAX)

    def saw(self, permit: CallPermit, usage: Usage) -> None:
        """Learn how long the answers of a call were."""
        self.outputs.saw(permit.tenant_id, permit.model, usage.tokens_output, permit.ask.answers)

    def estimate(self, rater: Rater, said: Said, at: int, tokens_output: int) -> Estimate:
        """The most that a call may cost; CallRefused when its model has no price."""
        rates = self._rates(rater, said, at)
        if rates is None:
            if not self._settings.allows_unpriced:
                raise CallRefused(
                    f"{said.model} of {said.provider or 'any provider'} has no price; "
                    "add it to a rate card",
                    code="unpriced_model",
                    decided_by="policy:unpriced_model",
                )
            return Estimate(1, 0, said.tokens_input + tokens_output)
        audio = self._audio_rates(rater, said, at) if said.has_audio else None
        estimate = plan_estimate(
            rates,
            audio=audio,
            standard=self._standard_rates(rater, said, at),
            tokens_input=said.tokens_input,
            tokens_output=tokens_output,
            has_cache_write=said.has_cache_write,
            tools=said.tools,
        )
        return estimate._replace(credit_units=max(estimate.credit_units, 1))

    def covered(self, rater: Rater, said: Said, at: int, credit_units: int) -> tuple[int, Estimate]:
        """The most output tokens that a hold of so much credit covers, and their estimate."""
        least, beyond = 0, TOKENS_MAX + 1
        while beyond - least > 1:
            middle = (least + beyond) // 2
            if self.estimate(rater, said, at, middle).credit_units <= credit_units:
                least = middle
            else:
                beyond = middle
        return least, self.estimate(rater, said, at, least)

    @staticmethod
    def _rates(rater: Rater, said: Said, at: int) -> CallRates | None:
        return rater.rates_of(
            said.tenant_id, said.provider, said.model, said.service_tier, said.is_batch, at
        )

    def _standard_rates(self, rater: Rater, said: Said, at: int) -> CallRates | None:
        """The prices of no tier, when one was asked for: the provider may serve without."""
        if not said.service_tier:
            return None
        return self._rates(rater, msgspec.structs.replace(said, service_tier=""), at)

    def _audio_rates(self, rater: Rater, said: Said, at: int) -> CallRates | None:
        """The prices of sound; CallRefused when the card has none of its own."""
        audio = msgspec.structs.replace(said, service_tier=AUDIO_TIER)
        rates = self._rates(rater, audio, at)
        if rates is not None and rates.has_tier:
            return rates
        if self._settings.allows_unpriced:
            return None
        raise CallRefused(
            f"{said.model} has no prices of sound; add them to a rate card as a variant "
            f"for the service tier {AUDIO_TIER}",
            code="unpriced_model",
            decided_by="policy:unpriced_model",
        )

    @staticmethod
    def price(rater: Rater, permit: CallPermit, usage: Usage) -> Rated:
        """What a usage costs by the prices of the call's authorization."""
        ask = permit.ask
        at = permit.occurred_at
        rated = rate_usage(
            rater,
            usage,
            tenant_id=permit.tenant_id,
            provider=permit.provider,
            model=permit.model,
            service_tier=tier_served(ask.service_tier, usage),
            is_batch=ask.is_batch,
            at=at,
        )
        if not usage.tools:
            return rated
        tools = rater.tool_units(permit.tenant_id, usage.tools, at)
        return rated._replace(credit_units=rated.credit_units + tools)
