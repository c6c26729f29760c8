"""The gateway of this process: its settings, the door before it and the money behind it."""

from __future__ import annotations

import os

from starlette.requests import Request

from tallystick.access import Principal
from tallystick.api.auditing import note_answer
from tallystick.api.services import Services
from tallystick.enforcement.rates import UNLIMITED, Decision, rate_headers
from tallystick.errors import TooManyRequests
from tallystick.gateway import Gateway, load_gateway_settings, make_gateway
from tallystick.gateway.keys import KeyRing
from tallystick.ids import Uuid7Source
from tallystick.settings import Settings


def gateway_of(services: Services, settings: Settings) -> Gateway:
    """Make the gateway; raises InvalidInput for settings that cannot work."""
    gateway_settings = load_gateway_settings(settings.gateway_config, os.environ)
    keys = KeyRing(services.provider_keys)
    keys.start()
    return make_gateway(
        services.calls,
        gateway_settings,
        keys,
        GatewayDoor(services),
        services.clock,
        Uuid7Source(services.clock),
    )


class GatewayDoor:
    """The gate, the rate limits and the audit trail, as the gateway asks for them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limiter = services.rates.limiter

    async def admit(self, request: Request) -> Principal:
        """Who asks, when they may call models; counts one request."""
        self._services.audit.check_room()
        return await self._services.gate.admit(request, "gateway:call")

    async def take_tokens(self, request: Request, tokens: int) -> Decision:
        """Take tokens from every limit that matches, or raise TooManyRequests."""
        principal: Principal = request.state.principal
        route = request.scope["path"]
        decision = await self._limiter.check(principal, route=route, requests=0, tokens=tokens)
        if decision is not UNLIMITED:
            request.state.rate = decision
        if not decision.allowed:
            raise TooManyRequests(
                f"over {decision.limit} tokens a minute; try again in {decision.retry_after} s",
                decided_by=decision.decided_by,
                retry_after_seconds=decision.retry_after,
            )
        return decision

    async def correct_tokens(self, principal: Principal, tokens: int) -> None:
        """Take the difference to the estimate, or give it back."""
        await self._limiter.correct(principal, tokens=tokens)

    def headers(self, request: Request) -> dict[str, str]:
        """The RateLimit headers, when a limit applies."""
        rate = getattr(request.state, "rate", UNLIMITED)
        return {} if rate is UNLIMITED else rate_headers(rate)

    def note(self, request: Request, route: str, status: int, code: str, started: float) -> None:
        """Put a call on record: who, which route, what was decided; no content."""
        note_answer(self._services, request, route, status, code, started)
