"""The gate: what every request passes before its route, in this order.

Who asks (a key or token), whether they may use the route, whose data they see, and whether it
is too much. What the gate found is `request.state.principal`; the tenant is also set for
every transaction of the request, where PostgreSQL shows no row of another one.
"""

from __future__ import annotations

from starlette.requests import Request

from tallystick.access import Access, Principal
from tallystick.enforcement.rates import UNLIMITED, RateLimiter
from tallystick.errors import Forbidden, TallystickError, TooManyRequests, Unauthorized
from tallystick.plumbing.postgres import acting_for


class Gate:
    """Lets requests in, or raises Unauthorized, Forbidden or TooManyRequests."""

    def __init__(self, access: Access, limiter: RateLimiter) -> None:
        self._access = access
        self._limiter = limiter

    async def admit(
        self, request: Request, needs: str, *, is_for_operator: bool = False
    ) -> Principal:
        """Check a request for a route that needs a permission ("": any principal)."""
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("send Authorization: Bearer <key>")
        principal = await self._access.authenticate(text.strip(), address_of(request))
        request.state.principal = principal  # a refusal is on record under who was refused
        if needs and not principal.may(needs):
            raise Forbidden(f"this needs the permission {needs}")
        if is_for_operator and principal.tenant_id:
            raise Forbidden("this is for the operator, who belongs to no tenant")
        await self._limit(request, principal)
        act_for(request, principal)
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

    async def still_admits(self, request: Request) -> bool:
        """Whether who asked may still be answered: an answer that goes on asks before each part."""
        text = request.headers["authorization"].partition(" ")[2].strip()
        try:
            principal = await self._access.authenticate(text, address_of(request))
        except TallystickError:
            return False
        found: Principal = request.state.principal
        return principal == found


def act_for(request: Request, principal: Principal) -> None:
    """From here on the request is its principal's, and reads that tenant's rows alone."""
    request.state.principal = principal
    acting_for.set(principal.tenant_id)


def address_of(request: Request) -> str:
    """The address that the connection comes from, "" when there is none."""
    return request.client.host if request.client else ""
