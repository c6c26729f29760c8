"""Rate limits as people set them; the limiter of this process follows at once.

Other processes look for changes every second; what cannot be loaded then stays as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from tallystick.bounds import ID_LENGTH_MAX
from tallystick.enforcement.rates.limiter import RateLimiter
from tallystick.enforcement.rates.model import ASSETS, KINDS, RateLimit
from tallystick.enforcement.rates.store import RateLimitStore
from tallystick.errors import InvalidInput
from tallystick.plumbing.postgres import for_every_tenant

_UNITS_MAX = 10**9
_FOLLOW_SECONDS = 1.0
_log = logging.getLogger(__name__)


class RateLimits:
    """Keeps limits, and the limiter that uses them."""

    def __init__(self, store: RateLimitStore, limiter: RateLimiter) -> None:
        self._store = store
        self.limiter = limiter
        limiter.configure(store.load())

    async def list(self, tenant_id: str) -> dict[str, Any]:
        """Limits of a tenant; of all for the operator."""
        found = await asyncio.to_thread(self._store.load, tenant_id)
        return {"rate_limits": [msgspec.structs.asdict(one) for one in found]}

    async def put(
        self,
        tenant_id: str,
        *,
        kind: str,
        name: str,
        asset: str,
        per_minute: int,
        burst: int,
        weight: int,
        by: str,
    ) -> dict[str, Any]:
        """Make a limit, or give the one of the same kind, name and asset other numbers."""
        limit = RateLimit(
            limit_id_of(tenant_id, kind, name, asset),
            tenant_id,
            kind,
            name,
            asset,
            per_minute,
            burst or per_minute,
            weight,
        )
        _check(limit)
        await asyncio.to_thread(self._store.put, limit, by)
        await self.refresh()
        return msgspec.structs.asdict(limit)

    async def delete(self, tenant_id: str, limit_id: str) -> dict[str, Any]:
        """Take a limit away; NotFound."""
        await asyncio.to_thread(self._store.delete, tenant_id, limit_id)
        await self.refresh()
        return {"limit_id": limit_id, "status": "deleted"}

    async def refresh(self) -> None:
        """Use what is stored now."""
        with for_every_tenant():  # a request of one tenant may have asked
            found = await asyncio.to_thread(self._store.load)
        self.limiter.configure(found)

    async def follow(self) -> None:
        """Look for the changes of other processes, until cancelled."""
        while True:
            await asyncio.sleep(_FOLLOW_SECONDS)
            try:
                await self.refresh()
            except Exception as error:  # an outage keeps the limits as they are
                _log.warning("rate limits could not be loaded: %s", error)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow while the body runs."""
        task = asyncio.ensure_future(self.follow())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.limiter.close()


def limit_id_of(tenant_id: str, kind: str, name: str, asset: str) -> str:
    """The id of a limit: of what it is for, so that setting it again is no second one."""
    identity = msgspec.json.encode([tenant_id, kind, name, asset])
    return f"rl_{hashlib.sha256(identity).hexdigest()[:24]}"


def _check(limit: RateLimit) -> None:
    if limit.kind not in KINDS:
        raise InvalidInput(f"kind must be one of {', '.join(KINDS)}", field="kind")
    if limit.asset not in ASSETS:
        raise InvalidInput(f"asset must be one of {', '.join(ASSETS)}", field="asset")
    is_pool = limit.kind in ("global", "tenant")
    if is_pool == bool(limit.name) or len(limit.name) > ID_LENGTH_MAX:
        raise InvalidInput("name is the tier, service or key; a pool has none", field="name")
    if (limit.kind == "global") == bool(limit.tenant_id) and limit.kind != "tier":
        raise InvalidInput(
            "global is the operator's; tenant, service and key need a tenant_id", field="tenant_id"
        )
    for name in ("per_minute", "burst"):
        if not 1 <= getattr(limit, name) <= _UNITS_MAX:
            raise InvalidInput(f"{name} must be 1 to {_UNITS_MAX}", field=name)
    if not 1 <= limit.weight <= 1000:
        raise InvalidInput("weight must be 1 to 1000", field="weight")
