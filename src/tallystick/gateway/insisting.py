"""A call that was made has to be settled: what a store refuses for now is tried again.

The upstream has done its work by then, so a store that is away for a moment must not make it
free, nor leave its hold to the ledger's resolver; nor cut off an answer that needs a larger hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tallystick.errors import SlowDown, StoreUnavailable

T = TypeVar("T")
_DELAYS = (0.1, 0.5, 2.0, 5.0)
"""Seconds between tries; what stays unsettled is left to the ledger's resolver."""


async def insist(step: Callable[[], Awaitable[T]]) -> T:
    """Do it, and try again while stores are away; raises what the last try raises."""
    for delay in _DELAYS:
        try:
            return await step()
        except (StoreUnavailable, SlowDown):
            await asyncio.sleep(delay)
    return await step()
