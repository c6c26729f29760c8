"""The limiter: every limit that matches a caller must have room, or nothing is taken.

Exact in one process. With a lender, exact over all processes that share it. Without limits it
costs one look at a flag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tallystick.access import Principal
from tallystick.clock import MINUTE, SECOND, Clock
from tallystick.enforcement.rates.lanes import Lane, Lender, SharedLane
from tallystick.enforcement.rates.model import UNLIMITED, Decision, RateLimit

_ALWAYS_OPEN = "/v1/rate-limits"
"""So that a limit can be undone."""
_FORGET_AFTER = 10 * MINUTE
_BLOCKS_PER_MINUTE = 600


class _Caller:
    """The lanes that one caller's requests go through."""

    __slots__ = ("lanes", "seen_at", "weight", "who")

    def __init__(self, who: str, weight: int, lanes: Sequence[Lane]) -> None:
        self.who = who
        self.weight = weight
        self.lanes = [(lane, lane.limit.asset == "tokens") for lane in lanes]
        self.seen_at = 0


class RateLimiter:
    """Decides about requests; one for each event loop."""

    def __init__(self, clock: Clock, lender: Lender | None = None) -> None:
        self._clock = clock
        self._lender = lender
        self._limits: tuple[RateLimit, ...] = ()
        self._lanes: dict[str, Lane] = {}
        self._callers: dict[tuple[str, ...], _Caller] = {}
        self._swept_at = 0
        self._lending = asyncio.Lock()

    def configure(self, limits: Sequence[RateLimit]) -> None:
        """Use these limits from now on; a limit that did not change keeps its level."""
        if tuple(limits) == self._limits:
            return
        kept = set(limits)
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.limit in kept}
        self._callers = {}
        self._limits = tuple(limits)

    async def check(
        self, principal: Principal, *, route: str, requests: int = 1, tokens: int = 0
    ) -> Decision:
        """Take requests and (estimated) tokens from every limit that matches, or from none."""
        if not self._limits or route.startswith(_ALWAYS_OPEN):
            return UNLIMITED
        now = self._clock.now()
        caller = self._caller(principal, now)
        decision, short = self._decide(caller, requests, tokens, now)
        lends = 0
        while short is not None and self._lender is not None and lends <= len(caller.lanes):
            units = tokens if short.limit.asset == "tokens" else requests
            has_lent = await self._lend(short, units, self._lender)
            lends += 1
            decision, short = self._decide(caller, requests, tokens, self._clock.now())
            if not has_lent:
                break
        return decision

    async def correct(self, principal: Principal, *, tokens: int) -> None:
        """Take the actual tokens minus the estimate; what is negative is given back."""
        if not self._limits or not tokens:
            return
        for lane, is_tokens in self._caller(principal, self._clock.now()).lanes:
            if is_tokens and lane.is_shared and self._lender is not None:
                await self._lender.give_back(lane.bucket_id, lane.limit, -tokens)
            elif is_tokens:
                lane.bucket.add(-tokens)

    async def close(self) -> None:
        """Let the lender's connections go."""
        if self._lender is not None:
            await self._lender.close()

    def _decide(
        self, caller: _Caller, requests: int, tokens: int, now: int
    ) -> tuple[Decision, SharedLane | None]:
        """What is to be answered, and the lane that could lend more."""
        for lane, is_tokens in caller.lanes:
            units = tokens if is_tokens else requests
            missing = lane.missing(units, caller.who, caller.weight, now) if units else 0
            if missing:
                is_short = isinstance(lane, SharedLane) and lane.units < units
                return _refused(lane, missing), lane if is_short else None  # type: ignore[return-value]
        nearest: Lane | None = None
        for lane, is_tokens in caller.lanes:
            units = tokens if is_tokens else requests
            if units:
                lane.take(units, caller.who, now)
            if nearest is None or lane.bucket.level < nearest.bucket.level:
                nearest = lane
        return (UNLIMITED if nearest is None else _allowed(nearest)), None

    async def _lend(self, lane: SharedLane, units: int, lender: Lender) -> bool:
        async with self._lending:
            asked_at = self._clock.now()
            if lane.units >= units and asked_at < lane.until:
                return True
            need = units if asked_at >= lane.until else units - lane.units
            block = max(need, lane.limit.per_minute // _BLOCKS_PER_MINUTE)
            lent = await lender.lend(lane.bucket_id, lane.limit, need, block)
            if asked_at >= lane.until:
                lane.units = 0
            lane.receive(lent, asked_at)
            return lent.units >= need

    def _caller(self, principal: Principal, now: int) -> _Caller:
        key = (
            principal.tenant_id,
            principal.subject,
            principal.tier,
            principal.service_id,
        )
        caller = self._callers.get(key)
        if caller is None:
            caller = self._callers[key] = self._new_caller(principal, now)
        caller.seen_at = now
        if now - self._swept_at > 30 * SECOND:
            self._sweep(now)
        return caller

    def _new_caller(self, principal: Principal, now: int) -> _Caller:
        tenant_id = principal.tenant_id  # its length first: either name may have any character
        who = f"{len(tenant_id)}:{tenant_id}/{principal.subject}"
        lanes, weight = [], 1
        for limit in self._limits:
            if not matches(limit, principal):
                continue
            own = f"/{who}" if limit.kind == "tier" else ""
            bucket_id = f"{limit.limit_id}{own}"
            if limit.kind in ("tier", "key"):
                weight = max(weight, limit.weight)
            if bucket_id not in self._lanes:
                form = Lane if self._lender is None else SharedLane
                self._lanes[bucket_id] = form(bucket_id, limit, now)
            lanes.append(self._lanes[bucket_id])
        return _Caller(who, weight, lanes)

    def _sweep(self, now: int) -> None:
        """Forget who has not been seen for so long that every level is full again."""
        self._swept_at = now
        old = now - _FORGET_AFTER
        self._callers = {key: one for key, one in self._callers.items() if one.seen_at > old}
        used = {lane.bucket_id for one in self._callers.values() for lane, _ in one.lanes}
        self._lanes = {
            key: lane
            for key, lane in self._lanes.items()
            if key in used or lane.bucket.refill(now) < lane.bucket.full
        }


def matches(limit: RateLimit, principal: Principal) -> bool:
    """Tell whether a limit is for this caller."""
    if limit.tenant_id not in ("", principal.tenant_id):
        return False
    named = {
        "tier": principal.tier,
        "service": principal.service_id,
        "key": principal.key_id,
    }
    return limit.kind in ("global", "tenant") or bool(
        limit.name and named[limit.kind] == limit.name
    )


def _allowed(lane: Lane) -> Decision:
    limit = lane.limit
    full = lane.bucket.full - lane.bucket.level
    return Decision(
        True,
        limit.per_minute,
        lane.remaining(),
        lane.seconds_until(full),
        0,
        lane.decided_by,
        limit.burst,
    )


def _refused(lane: Lane, missing: int) -> Decision:
    limit = lane.limit
    wait = max(1, lane.seconds_until(missing))
    return Decision(False, limit.per_minute, 0, wait, wait, lane.decided_by, limit.burst)
