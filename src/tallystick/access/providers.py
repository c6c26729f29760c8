"""Tokens of identity providers: which key signed them, and whether they are good.

Keys of a URL are kept for a while and fetched anew when a token names one that is not known,
at most every FETCH_SECONDS_MIN: a made-up key id cannot make us ask more often. When the
provider is away its last keys are believed for KEYS_SECONDS_MAX and then none.
"""

from __future__ import annotations

import base64
import binascii
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from tallystick.access.model import IdentityProvider, Principal
from tallystick.access.rules import check_claims, principal_of_claims
from tallystick.errors import InvalidInput, StoreUnavailable, TallystickError, Unauthorized
from tallystick.plumbing.outbound import OutboundPolicy, Unreachable, fetch

TOKEN_BYTES_MAX = 8 * 1024
KEYS_FRESH_SECONDS = 300
KEYS_SECONDS_MAX = 3600
FETCH_SECONDS_MIN = 15
_SET_BYTES_MAX = 256 * 1024
_KEYS_MAX = 50
_WAIT_SECONDS = 1.0
_REFUSED = frozenset({"crit", "cty", "jku", "jwk", "x5c", "x5u"})
"""What a header may not say: that it is another token, has extensions that we do not know, or
which key is to be believed. Source: RFC 8725, 3.10; RFC 7515, 4.1."""

_NOT_GOOD = "the key or token is not good"


class Unverified(NamedTuple):
    """What a token says of itself before anything is checked."""

    header: dict[str, Any]
    claims: dict[str, Any]


class _KeySet(NamedTuple):
    keys: list[dict[str, Any]]
    fetched_at: float
    asked_at: float


def read_unverified(token: str) -> Unverified:
    """Take a compact token apart; Unauthorized when it is none."""
    pieces = token.split(".")
    if len(token) > TOKEN_BYTES_MAX or len(pieces) != 3:
        raise Unauthorized(_NOT_GOOD)
    try:
        header, claims = (
            msgspec.json.decode(_decode(piece), type=dict[str, Any]) for piece in pieces[:2]
        )
    except (ValueError, binascii.Error, msgspec.DecodeError, RecursionError) as error:
        raise Unauthorized(_NOT_GOOD) from error
    if not _REFUSED.isdisjoint(header) or not isinstance(header.get("kid", ""), str):
        raise Unauthorized(_NOT_GOOD)
    return Unverified(header, claims)


def _decode(piece: str) -> bytes:
    return base64.b64decode(piece + "=" * (-len(piece) % 4), altchars=b"-_", validate=True)


def check_signature(
    token: str, keys: Iterable[Mapping[str, Any]], algorithms: tuple[str, ...]
) -> dict[str, Any]:
    """The claims of a token that one of the keys signed; Unauthorized.

    The algorithm must be one that we chose, and the key of its kind: a public key is never
    taken for a shared secret.
    """
    header = read_unverified(token).header
    algorithm, key_id = header.get("alg"), header.get("kid")
    fitting = [key for key in keys if _fits(key, algorithm, key_id)]
    if algorithm not in algorithms or len(fitting) != 1:
        raise Unauthorized(_NOT_GOOD)
    try:
        return jwt.decode(token, _import(fitting[0]), algorithms=[algorithm]).claims
    except (JoseError, ValueError, TypeError) as error:
        raise Unauthorized(_NOT_GOOD) from error


def _import(key: Mapping[str, Any]) -> Key:
    public = {name: value for name, value in key.items() if name not in _PRIVATE}
    found = import_key(public)
    if not isinstance(found, RSAKey | ECKey | OKPKey):
        raise ValueError("not a public key")
    return found


_PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "k", "key_ops"}
_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC"}


def _fits(key: Mapping[str, Any], algorithm: object, key_id: object) -> bool:
    if not isinstance(algorithm, str) or key.get("kty") != _KINDS.get(algorithm[:2]):
        return False
    is_for_signing = key.get("use", "sig") == "sig" and key.get("alg", algorithm) == algorithm
    return is_for_signing and (key_id is None or key.get("kid") == key_id)


def read_key_set(text: bytes | str) -> list[dict[str, Any]]:
    """The keys of a JWK set; InvalidInput."""
    try:
        found = msgspec.json.decode(text, type=dict[str, Any]).get("keys")
        keys = msgspec.convert(found, list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput("jwks must be a JWK set (RFC 7517)", field="jwks") from error
    if not 0 < len(keys) <= _KEYS_MAX:
        raise InvalidInput(f"jwks must have 1 to {_KEYS_MAX} keys", field="jwks")
    return keys


class Providers:
    """Checks tokens of the identity providers that are trusted."""

    def __init__(
        self, outbound: OutboundPolicy, *, tick: Callable[[], float] = time.monotonic
    ) -> None:
        self._outbound = outbound
        self._tick = tick
        self._sets: dict[str, _KeySet] = {}
        self._locks: dict[str, threading.Lock] = {}

    def check(
        self, token: str, trusted: Iterable[IdentityProvider], now_seconds: float
    ) -> tuple[Principal, float]:
        """Who a token is, and until when (seconds); Unauthorized, StoreUnavailable."""
        said = read_unverified(token)
        audiences = said.claims.get("aud")
        named = audiences if isinstance(audiences, list) else [audiences]
        for provider in trusted:
            if provider.issuer == said.claims.get("iss") and provider.audience in named:
                break
        else:
            raise Unauthorized(_NOT_GOOD)
        if said.header.get("alg") not in provider.algorithms:
            raise Unauthorized(_NOT_GOOD)
        keys = self._keys_of(provider, said.header)
        claims = check_signature(token, keys, provider.algorithms)
        check_claims(claims, now_seconds, issuer=provider.issuer, audience=provider.audience)
        return principal_of_claims(provider, claims), int(claims["exp"])

    def _keys_of(
        self, provider: IdentityProvider, header: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        if provider.jwks:
            return read_key_set(provider.jwks)
        known = self._sets.get(provider.provider_id)
        if known is not None and self._is_enough(known, header):
            return known.keys
        lock = self._locks.setdefault(provider.provider_id, threading.Lock())
        if not lock.acquire(timeout=_WAIT_SECONDS):  # one fetch of a provider at a time
            raise StoreUnavailable("the identity provider's keys are being fetched")
        try:
            known = self._sets.get(provider.provider_id)
            if known is None or not self._is_enough(known, header):
                known = self._fetch(provider, known)
            return known.keys
        finally:
            lock.release()

    def _is_enough(self, known: _KeySet, header: Mapping[str, Any]) -> bool:
        now = self._tick()
        if now - known.asked_at < FETCH_SECONDS_MIN and known.keys:
            return now - known.fetched_at < KEYS_SECONDS_MAX
        has_key = any(_fits(key, header.get("alg"), header.get("kid")) for key in known.keys)
        return has_key and now - known.fetched_at < KEYS_FRESH_SECONDS

    def _fetch(self, provider: IdentityProvider, known: _KeySet | None) -> _KeySet:
        now = self._tick()
        if known is not None and not known.keys and now - known.asked_at < FETCH_SECONDS_MIN:
            raise Unauthorized("the keys of the identity provider are not to be had")
        try:
            found = _KeySet(self._read(provider), now, now)
        except TallystickError:
            old = known or _KeySet([], -math.inf, now)
            is_good = now - old.fetched_at < KEYS_SECONDS_MAX
            found = _KeySet(old.keys if is_good else [], old.fetched_at, now)
            if not found.keys:
                self._sets[provider.provider_id] = found
                raise
        self._sets[provider.provider_id] = found
        return found

    def _read(self, provider: IdentityProvider) -> list[dict[str, Any]]:
        try:
            return read_key_set(fetch(provider.jwks_url, self._outbound, bytes_max=_SET_BYTES_MAX))
        except Unreachable as error:
            raise StoreUnavailable(f"the identity provider's keys: {error.message}") from error
