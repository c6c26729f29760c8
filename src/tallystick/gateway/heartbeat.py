"""Holds of calls that take long are given more time, so that none runs out under its call.

A hold that ran out becomes unknown: its money stays set aside, but an operator is told of a call
that nobody settles. A stream may go on for hours. One look over all calls under way, a few times
within a hold's time, extends what is half over; a call that ends soon costs two entries of a
table. What cannot be extended (the ledger is away) is tried again at the next look.
"""

from __future__ import annotations

import asyncio
import logging

from tallystick.errors import Conflict
from tallystick.gateway.money import CallPermit, Calls

_LOOKS = 6
"""Looks within the time that a hold has."""
_log = logging.getLogger(__name__)


class Heartbeat:
    """Knows the calls under way; belongs to one event loop."""

    def __init__(self, calls: Calls, hold_seconds: int) -> None:
        self._calls = calls
        self._hold_seconds = hold_seconds
        self._under_way: dict[str, tuple[CallPermit, float]] = {}
        """By hold: the permit, and the loop's time at which half of its time is over."""
        self._task: asyncio.Task[None] | None = None

    def began(self, permit: CallPermit) -> None:
        """A call is under way."""
        self._under_way[permit.hold_id] = (permit, self._half_over())
        if self._task is None:
            self._task = asyncio.create_task(self._beat())

    def ended(self, permit: CallPermit) -> None:
        """A call needs its hold no more: it is being ended."""
        self._under_way.pop(permit.hold_id, None)

    def beats(self, permit: CallPermit) -> bool:
        """Whether a call needs its hold still."""
        return permit.hold_id in self._under_way

    async def close(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._hold_seconds / _LOOKS)
            now = asyncio.get_running_loop().time()
            for permit in [one for one, at in self._under_way.values() if at <= now]:
                if permit.hold_id in self._under_way:
                    await self._extend(permit)

    async def _extend(self, permit: CallPermit) -> None:
        try:
            await self._calls.keep(permit, ttl_seconds=self._hold_seconds)
        except Conflict:  # it has ended otherwise
            self.ended(permit)
            return
        except Exception as error:
            _log.warning("the hold of a long call could not be extended: %s", error)
            return
        if permit.hold_id in self._under_way:
            self._under_way[permit.hold_id] = (permit, self._half_over())

    def _half_over(self) -> float:
        return asyncio.get_running_loop().time() + self._hold_seconds / 2
