"""A call that was made has to be settled: what a store refuses for now is tried again.

The upstream has done its work by then, so a store that is away for a moment must not make it
free, nor leave its hold to the ledger's resolver; nor cut off an answer that needs a larger hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from tallystick.errors import SlowDown, StoreUnavailable
from tallystick.gateway.money import CallAsk, CallPermit, CallRefused, Calls

T = TypeVar("T")
_DELAYS = (0.1, 0.5, 2.0, 5.0)
"""Seconds between tries; what stays unsettled is left to the ledger's resolver."""
_FULL = frozenset({"budget_exceeded", "credit_exhausted"})


async def insist(step: Callable[[], Awaitable[T]]) -> T:
    """Do it, and try again while stores are away; raises what the last try raises."""
    for delay in _DELAYS:
        try:
            return await step()
        except (StoreUnavailable, SlowDown):
            await asyncio.sleep(delay)
    return await step()


async def insist_on_room(
    calls: Calls, ask: CallAsk, hold: Callable[[CallAsk], Awaitable[CallPermit]]
) -> CallPermit:
    """Hold for a call, or CallRefused.

    A call that has ended holds its most until its capture is made, a moment later: that
    refuses neither the next call nor another attempt. So it is made, and asked once more.
    """
    try:
        return await hold(ask)
    except CallRefused as refused:
        may_fit = refused.retry == "wait" and refused.code in _FULL
        if not (may_fit and await calls.finish_captures()):
            raise
    again = f"{ask.idempotency_key}-again"
    return await hold(msgspec.structs.replace(ask, idempotency_key=again))
