"""Forms of pages: read within bounds, and only from the session that was shown them.

Another port of this machine counts as the same site, so a form carries a token that is bound
to the session's cookie, and who sent it must have the permission.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request

from tallystick.access import Principal
from tallystick.api.requests import principal_of, read_body
from tallystick.api.services import Services
from tallystick.errors import Forbidden

SESSION_COOKIE = "tallystick_session"
_FORM_BYTES_MAX = 64 * 1024


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that was sent."""
    body = await read_body(request, _FORM_BYTES_MAX)
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def form_token_of(services: Services, request: Request) -> str:
    """What a form of this session must carry."""
    return services.access.form_token(request.cookies.get(SESSION_COOKIE, ""))


def require_form(
    services: Services, request: Request, form: Mapping[str, str], needs: str
) -> Principal:
    """Who sent a form; Forbidden when it is not the session's, or the permission is missing."""
    given = form.get("form_token", "").encode("utf-8", "surrogatepass")
    if not hmac.compare_digest(given, form_token_of(services, request).encode()):
        raise Forbidden("the form is too old; load the page again")
    principal = principal_of(request)
    if not principal.may(needs):
        raise Forbidden(f"this needs the permission {needs}")
    return principal
