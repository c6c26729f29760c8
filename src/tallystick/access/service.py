"""Who asks: checks keys, tokens and sessions; makes, changes and revokes them.

A key that was seen lately is checked in memory; everything else asks the store. What fails
says no more than that it failed, and takes as long for a wrong secret as for a right one.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from msgspec.structs import asdict, replace
from psycopg_pool import ConnectionPool

from tallystick.access.known import Known, Refresher
from tallystick.access.model import (
    OPERATOR,
    Credential,
    Grant,
    IdentityProvider,
    Principal,
    ProviderGrant,
)
from tallystick.access.providers import Providers, check_signature, read_key_set, read_unverified
from tallystick.access.rules import (
    Network,
    check_claims,
    check_grant,
    check_provider,
    is_address_allowed,
    permissions_of,
    principal_of_credential,
    read_networks,
    require_within,
)
from tallystick.access.secret import AccessSecret
from tallystick.access.store import AccessStore
from tallystick.access.tokens import AUDIENCE, Issuer, client_id_of
from tallystick.clock import HOUR, SECOND, Clock
from tallystick.errors import Conflict, Forbidden, InvalidInput, Unauthorized
from tallystick.ids import IdSource
from tallystick.plumbing.outbound import OutboundPolicy, check_url

OVERLAP_SECONDS_MAX = 30 * 24 * 3600
"""How long an old secret may stay good beside the new one."""

SESSION_HOURS = 12
PAGE_MAX = 500
_SECRET = re.compile(r"(tsc?)_([a-z0-9]{8})_[0-9a-f]{64}")
_KINDS = {"ts": "key", "tsc": "client"}
_MARKS = {kind: mark for mark, kind in _KINDS.items()}
_TOKEN_BELIEVED_SECONDS = 60
_TOKENS_MAX = 10_000
_THREADS = 4
_NO_HASH = bytes(32)
"""No text is known that hashes to it."""

_NOT_GOOD = "the key or token is not good"
T = TypeVar("T")


class Entry(NamedTuple):
    """A credential as it is remembered: who it is, and from where."""

    credential: Credential
    principal: Principal
    networks: tuple[Network, ...]


class _Believed(NamedTuple):
    """A token that was checked: until when that is believed, and by which client it stands."""

    principal: Principal
    until_seconds: float
    client_prefix: str


class Access:
    """Everything about who asks; `start` keeps what is remembered fresh."""

    def __init__(
        self,
        pool: ConnectionPool,
        secret: AccessSecret,
        clock: Clock,
        ids: IdSource,
        *,
        admin_key: str,
        issuer: str,
        outbound: OutboundPolicy,
    ) -> None:
        self._store = AccessStore(pool)
        self._secret = secret
        self._clock = clock
        self._ids = ids
        self._admin_hash = hashlib.sha256(admin_key.encode()).digest()
        self._outbound = outbound
        self.issuer = Issuer(self._store, secret, clock, issuer)
        self._providers = Providers(outbound)
        self.known: Known[Entry] = Known(self._load, self._store.load_version)
        self._uses: dict[str, int] = {}
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="access")
        self._refresher = Refresher(self.known, self._flush_uses)

    def start(self) -> None:
        """Begin to follow changes."""
        self._refresher.start()

    def close(self) -> None:
        """Stop."""
        self._refresher.close()
        self._threads.shutdown()

    def _load(self, prefix: str) -> Entry | None:
        found = self._store.load_by_prefix(prefix)
        if found is None:
            return None
        return Entry(found, principal_of_credential(found), read_networks(found.addresses))

    def _flush_uses(self) -> None:
        if self._uses:
            uses, self._uses = self._uses, {}
            self._store.note_uses(uses)

    # Checking

    async def _apart(self, step: Callable[..., T], *arguments: Any) -> T:
        """Ask the store or a provider in threads of our own.

        A provider that is slow keeps nobody else waiting; and a new thread acts for no tenant,
        so that what is remembered for all was not read for one.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, step, *arguments)

    async def authenticate(self, text: str, address: str) -> Principal:
        """Who a key or token is; Unauthorized, Forbidden (the address), StoreUnavailable."""
        if self.is_admin_key(text):
            return OPERATOR
        shape = _SECRET.fullmatch(text)
        if shape is not None:
            prefix = shape[2]
            try:
                entry = self.known.recall(prefix)
            except KeyError:
                entry = await self._apart(self.known.look_up, prefix)
            return self._check_key(entry, _KINDS[shape[1]], text, address)
        if text.count(".") == 2:
            return await self._authenticate_token(text, address)
        raise Unauthorized(_NOT_GOOD)

    def is_admin_key(self, text: str) -> bool:
        """Compare with the bootstrap admin key in constant time."""
        given = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(given, self._admin_hash)

    def _check_key(self, entry: Entry | None, kind: str, text: str, address: str) -> Principal:
        if kind != "key":
            raise Unauthorized(_NOT_GOOD)
        entry = self._check_secret(entry, kind, text)
        self._check_address(entry, address)
        return entry.principal

    def _check_secret(self, entry: Entry | None, kind: str, text: str) -> Entry:
        """The entry, if the text is its secret now."""
        given = self._secret.hash_of(text)
        now = self._clock.now()
        hashes = entry.credential.hashes(now) if entry is not None else ()
        # always two: one that was never made takes the work of one that was rotated
        is_right = [hmac.compare_digest(given, one) for one in (*hashes, _NO_HASH, _NO_HASH)[:2]]
        if entry is None or True not in is_right:
            raise Unauthorized(_NOT_GOOD)
        found = entry.credential
        if found.kind != kind or not found.is_live(now):
            raise Unauthorized(_NOT_GOOD)
        self._uses[found.credential_id] = now
        return entry

    @staticmethod
    def _check_address(entry: Entry, address: str) -> None:
        if not is_address_allowed(address, entry.networks):
            raise Forbidden("this key may not be used from here", code="address_not_allowed")

    async def _authenticate_token(self, text: str, address: str) -> Principal:
        name = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        believed: _Believed | None = None
        if self.known.is_fresh():
            believed = self.known.derived.get(name)
        if believed is None or believed.until_seconds <= self._now_seconds():
            believed = await self._apart(self._check_token, text, name)
        if believed.client_prefix:
            try:
                entry = self.known.recall(believed.client_prefix)
            except KeyError:
                entry = await self._apart(self.known.look_up, believed.client_prefix)
            if entry is None or not entry.credential.is_live(self._clock.now()):
                raise Unauthorized(_NOT_GOOD)
            self._check_address(entry, address)
        return believed.principal

    def _now_seconds(self) -> float:
        return self._clock.now() / SECOND

    def _check_token(self, text: str, name: bytes) -> _Believed:
        if not self.known.is_fresh():
            self.known.refresh()
        derived = self.known.derived  # of this moment: a change meanwhile leaves it behind
        now = self._now_seconds()
        if read_unverified(text).claims.get("iss") == self.issuer.name:
            believed = self._check_own_token(text, now)
        else:
            if "providers" not in derived:
                derived["providers"] = self._store.list_providers()
            principal, ends_at = self._providers.check(text, derived["providers"], now)
            believed = _Believed(principal, min(ends_at, now + _TOKEN_BELIEVED_SECONDS), "")
        if len(derived) >= _TOKENS_MAX:
            derived.clear()
        derived[name] = believed
        return believed

    def _check_own_token(self, text: str, now: float) -> _Believed:
        claims = check_signature(text, self.issuer.public_keys(), ("ES256",))
        check_claims(claims, now, issuer=self.issuer.name, audience=AUDIENCE)
        prefix = str(claims.get("client_id", "")).removeprefix("client-")
        entry = self.known.look_up(prefix)
        if entry is None or entry.credential.kind != "client":
            raise Unauthorized(_NOT_GOOD)
        allowed = entry.principal.permissions & set(str(claims.get("scope", "")).split())
        principal = replace(entry.principal, permissions=allowed, roles=frozenset())
        until = min(int(claims["exp"]), now + _TOKEN_BELIEVED_SECONDS)
        return _Believed(principal, until, prefix)

    # Sessions of the dashboard

    async def new_session(self, text: str, address: str) -> str:
        """A cookie for who logs in with a key; raises what `authenticate` raises."""
        until = str(self._clock.now() + SESSION_HOURS * HOUR)
        if self.is_admin_key(text):
            return f"{until}.admin.{self._session_signature(until, 'admin', self._admin_hash)}"
        shape = _SECRET.fullmatch(text)
        if shape is None:
            raise Unauthorized(_NOT_GOOD)
        await self.authenticate(text, address)
        signature = self._session_signature(until, shape[2], self._secret.hash_of(text))
        return f"{until}.{shape[2]}.{signature}"

    async def principal_of_session(self, cookie: str, address: str) -> Principal | None:
        """Who a session is: nobody once its key is revoked or its secret no longer good."""
        until, _, rest = cookie.partition(".")
        name, _, signature = rest.partition(".")
        if not (until.isascii() and until.isdigit() and len(until) <= 20):
            return None
        if name == "admin":
            entry, hashes = None, [self._admin_hash]
        else:
            try:
                entry = self.known.recall(name)
            except KeyError:
                entry = await self._apart(self.known.look_up, name)
            if entry is None or not entry.credential.is_live(self._clock.now()):
                return None
            hashes = [*entry.credential.hashes(self._clock.now())]
        wanted = [self._session_signature(until, name, one).encode() for one in hashes]
        given = signature.encode("utf-8", "surrogatepass")
        is_ours = any(hmac.compare_digest(given, one) for one in wanted)
        if not is_ours or int(until) <= self._clock.now():
            return None
        if entry is None:
            return OPERATOR
        return entry.principal if is_address_allowed(address, entry.networks) else None

    def _session_signature(self, until: str, name: str, key_hash: bytes) -> str:
        return self._secret.signature(b"session", until.encode(), name.encode(), key_hash)

    def form_token(self, cookie: str) -> str:
        """What a form of a session must carry."""
        return self._secret.signature(b"form", cookie.encode("utf-8", "surrogatepass"))

    # Keys and clients

    def create(self, kind: str, asked: Grant, by: Principal) -> tuple[Credential, str]:
        """Make a key or client, and its secret, which is never to be had again."""
        now = self._clock.now()
        grant = replace(asked, tenant_id=asked.tenant_id or by.tenant_id)
        check_grant(grant, now)
        require_within(grant, by)
        prefix = self._secret.new_prefix()
        secret = f"{_MARKS[kind]}_{prefix}_{self._secret.new_secret()}"
        made = Credential(
            **asdict(grant),
            credential_id=self._ids.next_id(),
            kind=kind,
            prefix=prefix,
            hash=self._secret.hash_of(secret),
            old_hash=None,
            old_until=None,
            revoked_at=None,
            created_at=now,
            created_by=by.subject,
        )
        self._store.insert_credential(made)
        self.known.forget()
        return made, secret

    def load(self, kind: str, credential_id: str, by: Principal) -> Credential:
        """One key or client of who asks; NotFound."""
        return self._store.load_credential(kind, credential_id, by.tenant_id)

    def page(self, kind: str, tenant_id: str, cursor: str, limit: int) -> list[Credential]:
        """Keys or clients of a tenant, newest first, after a cursor."""
        return self._store.list_credentials(kind, tenant_id, cursor, min(max(limit, 1), PAGE_MAX))

    def change(
        self, kind: str, credential_id: str, given: dict[str, object], by: Principal
    ) -> Credential:
        """Change what a live key or client is given; nobody gives or keeps more than they have."""

        def step(found: Credential) -> Credential:
            self._require_live(found)
            require_within(found, by)
            changed = replace(found, **given)
            check_grant(changed, self._clock.now())
            require_within(changed, by)
            return changed

        return self._change(kind, credential_id, by, step)

    def rotate(
        self, kind: str, credential_id: str, overlap_seconds: int, by: Principal
    ) -> tuple[Credential, str]:
        """A new secret; the old one is good for `overlap_seconds` more."""
        if not 0 <= overlap_seconds <= OVERLAP_SECONDS_MAX:
            raise InvalidInput(
                f"overlap_seconds must be from 0 to {OVERLAP_SECONDS_MAX}", field="overlap_seconds"
            )
        secret = self._secret.new_secret()

        def step(found: Credential) -> Credential:
            self._require_live(found)
            require_within(found, by)
            now = self._clock.now()
            return replace(
                found,
                hash=self._secret.hash_of(f"{_MARKS[kind]}_{found.prefix}_{secret}"),
                old_hash=found.hash if overlap_seconds else None,
                old_until=now + overlap_seconds * SECOND if overlap_seconds else None,
            )

        rotated = self._change(kind, credential_id, by, step)
        return rotated, f"{_MARKS[kind]}_{rotated.prefix}_{secret}"

    def revoke(self, kind: str, credential_id: str, by: Principal) -> Credential:
        """End a key or client for ever; again changes nothing."""

        def step(found: Credential) -> Credential:
            return replace(found, revoked_at=found.revoked_at or self._clock.now())

        return self._change(kind, credential_id, by, step)

    def _change(
        self,
        kind: str,
        credential_id: str,
        by: Principal,
        step: Callable[[Credential], Credential],
    ) -> Credential:
        changed = self._store.change_credential(kind, credential_id, by.tenant_id, step)
        self.known.forget()
        return changed

    def _require_live(self, found: Credential) -> None:
        if not found.is_live(self._clock.now()):
            raise Conflict("it is revoked or over its time; make a new one", code="not_live")

    # Tokens

    def token_for(self, client_id: str, secret: str, scope: str, address: str) -> tuple[str, str]:
        """(token, scope) for a client that shows its secret; Unauthorized, InvalidInput."""
        shape = _SECRET.fullmatch(secret)
        is_named = shape is not None and shape[1] == "tsc" and client_id == f"client-{shape[2]}"
        entry = self.known.look_up(shape[2]) if shape is not None and is_named else None
        entry = self._check_secret(entry, "client", secret)
        self._check_address(entry, address)
        allowed = permissions_of(entry.credential.roles, entry.credential.scopes)
        wanted = scope.split() or sorted(allowed)
        if not set(wanted) <= allowed:
            raise InvalidInput("the client may not have this scope", code="invalid_scope")
        return self.issuer.issue(entry.credential, wanted), " ".join(wanted)

    # Identity providers

    def trust(self, asked: ProviderGrant, by: Principal) -> IdentityProvider:
        """Believe an identity provider's tokens; Conflict when its audience is taken."""
        grant = replace(asked, tenant_id=asked.tenant_id or by.tenant_id)
        check_provider(grant, by, self.issuer.name, is_lax=self._outbound.allow_private)
        if grant.jwks_url:
            check_url(grant.jwks_url, self._outbound, "jwks_url")
        if grant.jwks:
            read_key_set(grant.jwks)
        made = IdentityProvider(
            **asdict(grant),
            provider_id=self._ids.next_id(),
            created_at=self._clock.now(),
            created_by=by.subject,
        )
        if not self._store.insert_provider(made):
            raise Conflict(
                "an identity provider of this issuer and audience is trusted already",
                code="identity_provider_exists",
            )
        self.known.forget()
        return made

    def providers(self, tenant_id: str) -> list[IdentityProvider]:
        """Identity providers of a tenant ("" is every one)."""
        return self._store.list_providers(tenant_id)

    def distrust(self, provider_id: str, by: Principal) -> None:
        """Believe a provider no more; NotFound."""
        self._store.delete_provider(provider_id, by.tenant_id)
        self.known.forget()


__all__ = ["Access", "client_id_of"]
