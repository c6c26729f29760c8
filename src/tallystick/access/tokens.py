"""Our own issuer: short-lived signed tokens for services (OAuth 2.0 client credentials).

A token says which client it was given to; who that is and what it may is looked up at every
check, so that a revoked client's tokens end with it. The key that signs is made anew every
SIGNING_DAYS; the ones before stay published until their last token has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.jwk import ECKey

from tallystick.access.model import Credential, SigningKey
from tallystick.access.secret import AccessSecret
from tallystick.access.store import AccessStore
from tallystick.clock import DAY, SECOND, Clock
from tallystick.errors import TallystickError

AUDIENCE = "tallystick"
TOKEN_SECONDS = 900
_PUBLISHED_SECONDS = 5
"""A new key is published before it signs, so that every process knows it."""

SIGNING_DAYS = 30
_ALGORITHM = "ES256"
_KEPT_SECONDS = 24 * 3600
"""A key that no longer signs is published this much longer than its last token lives."""


class Issuer:
    """Makes tokens; its name is the `iss` of each."""

    def __init__(self, store: AccessStore, secret: AccessSecret, clock: Clock, name: str) -> None:
        self._store = store
        self._secret = secret
        self._clock = clock
        self.name = name
        self._private: dict[str, ECKey] = {}

    def rotate(self, *, is_due_only: bool = False) -> None:
        """Make a new signing key (when one is due), and forget those whose tokens have ended."""
        self._store.change_signing_keys(lambda found: self._plan(found, is_due_only))

    def _plan(
        self, found: Sequence[SigningKey], is_due_only: bool
    ) -> tuple[SigningKey | None, list[str]]:
        now = self._clock.now()
        kept = (TOKEN_SECONDS + _KEPT_SECONDS) * SECOND
        # a key ended when the one after it began
        ended = [older.key_id for newer, older in pairwise(found) if newer.created_at + kept < now]
        if is_due_only and found and now - found[0].created_at < SIGNING_DAYS * DAY:
            return None, ended
        key_id = self._secret.random(8).hex()
        made = ECKey.generate_key("P-256", {"kid": key_id, "use": "sig", "alg": _ALGORITHM})
        public = msgspec.json.encode(made.as_dict(private=False)).decode()
        private = msgspec.json.encode(made.as_dict(private=True))
        sealed = self._secret.private_keys.seal(private, key_id)
        return SigningKey(key_id, public, sealed, now), ended

    def issue(self, client: Credential, scopes: Sequence[str]) -> str:
        """A token for a client, for TOKEN_SECONDS."""
        signer = self._signer()
        now = self._clock.now() // SECOND
        claims = {
            "iss": self.name,
            "aud": AUDIENCE,
            "sub": client.credential_id,
            "client_id": client_id_of(client),
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
            "jti": self._secret.random(16).hex(),
            "scope": " ".join(scopes),
            "tenant_id": client.tenant_id,
            "service_id": client.service_id,
            "cost_center": client.cost_center,
        }
        header = {"alg": _ALGORITHM, "kid": signer.kid, "typ": "at+jwt"}
        return jwt.encode(header, claims, signer, algorithms=[_ALGORITHM])

    def _signer(self) -> ECKey:
        found = self._store.list_signing_keys()
        now = self._clock.now()
        if not found or now - found[0].created_at >= SIGNING_DAYS * DAY:
            self.rotate(is_due_only=True)
            found = self._store.list_signing_keys()
        if not found:
            raise TallystickError("no key could be made to sign with")
        is_young = now - found[0].created_at < _PUBLISHED_SECONDS * SECOND
        newest = found[1] if is_young and len(found) > 1 else found[0]
        if newest.key_id not in self._private:
            opened = self._secret.private_keys.open(newest.sealed, newest.key_id)
            parameters = msgspec.json.decode(opened)
            self._private = {newest.key_id: ECKey.import_key(parameters)}
        return self._private[newest.key_id]

    def public_keys(self) -> list[dict[str, Any]]:
        """The published keys, newest first."""
        return [msgspec.json.decode(one.public_key) for one in self._store.list_signing_keys()]


def client_id_of(client: Credential) -> str:
    """The name by which a client asks for tokens."""
    return f"client-{client.prefix}"
