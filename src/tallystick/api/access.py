"""Who may ask: a bearer key, or the session cookie that the login page sets.

The cookie is an expiry time and its signature, keyed by the admin key; it is HttpOnly and
SameSite=Strict. A form that changes something carries a token bound to that cookie too:
another port of this machine counts as the same site.
"""

from __future__ import annotations

import hashlib
import hmac

from starlette.requests import Request

from tallystick.clock import HOUR, Clock
from tallystick.errors import Unauthorized

SESSION_COOKIE = "tallystick_session"
SESSION_HOURS = 12


class Authenticator:
    """Knows the admin key; comparisons take the same time whatever is sent."""

    def __init__(self, admin_key: str, clock: Clock) -> None:
        self._key_hash = hashlib.sha256(admin_key.encode()).digest()
        self._session_secret = hashlib.sha256(b"session:" + admin_key.encode()).digest()
        self._clock = clock

    def require_key(self, request: Request) -> None:
        """Raise Unauthorized unless the request carries the key as a bearer token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.is_key(token.strip()):
            raise Unauthorized("send Authorization: Bearer <key>")

    def is_key(self, text: str) -> bool:
        """Compare a key in constant time."""
        given = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(given, self._key_hash)

    def new_session(self) -> str:
        """Return a cookie value that is good for SESSION_HOURS."""
        until = str(self._clock.now() + SESSION_HOURS * HOUR)
        return f"{until}.{self._signature(until)}"

    def has_session(self, request: Request) -> bool:
        """Tell whether the request carries a session that is still good."""
        until, _, signature = request.cookies.get(SESSION_COOKIE, "").partition(".")
        if not until.isascii() or not until.isdigit() or len(until) > 20:
            return False
        is_ours = hmac.compare_digest(signature.encode(), self._signature(until).encode())
        return is_ours and int(until) > self._clock.now()

    def form_token(self, request: Request) -> str:
        """What a form of this session must carry."""
        return self._signature("form:" + request.cookies.get(SESSION_COOKIE, ""))

    def is_form_token(self, request: Request, token: str) -> bool:
        """Compare a form's token in constant time."""
        return hmac.compare_digest(
            token.encode("utf-8", "surrogatepass"), self.form_token(request).encode()
        )

    def _signature(self, until: str) -> str:
        return hmac.new(self._session_secret, until.encode(), hashlib.sha256).hexdigest()
