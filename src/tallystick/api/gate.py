"""The gate: what every request passes before its route, in this order.

Who asks (a key, token or session), whether they may use the route, and whether it is too
much. What the gate found is `request.state.principal`.
"""

from __future__ import annotations

from starlette.requests import Request

from tallystick.access import OPERATOR, Principal
from tallystick.api.access import Authenticator
from tallystick.enforcement.rates import UNLIMITED, RateLimiter
from tallystick.errors import Forbidden, TooManyRequests


class Gate:
    """Lets requests in, or raises Unauthorized, Forbidden or TooManyRequests."""

    def __init__(self, authenticator: Authenticator, limiter: RateLimiter) -> None:
        self._authenticator = authenticator
        self._limiter = limiter

    async def admit(self, request: Request, needs: str) -> Principal:
        """Check a request for a route that needs a permission."""
        self._authenticator.require_key(request)
        principal = OPERATOR
        if not principal.may(needs):
            raise Forbidden(f"this needs the permission {needs}")
        await self._limit(request, principal)
        request.state.principal = principal
        return principal

    async def _limit(self, request: Request, principal: Principal) -> None:
        """Count the request; `request.state.rate` says where its caller stands."""
        decision = await self._limiter.check(principal, route=request.scope["path"])
        if decision is not UNLIMITED:
            request.state.rate = decision
        if not decision.allowed:
            raise TooManyRequests(
                f"over {decision.limit} a minute; try again in {decision.retry_after} s",
                decided_by=decision.decided_by,
                retry_after_seconds=decision.retry_after,
            )
