"""Captures that nobody waits for, made together a moment later.

Once a call's event is durable its charge is certain; the capture only frees the rest of the
hold and counts actual use of limits. So many captures share a transaction. What is in memory
when the process dies is found by the recovery of calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from tallystick.enforcement.calls.model import CallPermit, Usage
from tallystick.errors import Conflict, TallystickError
from tallystick.rating import Rated

_LINGER_SECONDS = 0.05
"""How long a hold may outlive its call, so that captures share commits."""

WAITING_MAX = 5_000
"""Captures in memory at most; beyond that callers wait for their own."""

_log = logging.getLogger(__name__)


class Settled(NamedTuple):
    """A call whose event is durable, and what it is worth."""

    permit: CallPermit
    usage: Usage
    rated: Rated


Capture = Callable[[Sequence[Settled]], Awaitable[Sequence[object]]]
"""Captures for calls and returns what became of each, failures among it."""


class LaterCaptures:
    """Collects captures and makes them in groups; belongs to one event loop."""

    def __init__(self, capture: Capture, *, linger_seconds: float = _LINGER_SECONDS) -> None:
        self._capture = capture
        self._linger_seconds = linger_seconds
        self._waiting: list[Settled] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._is_closing = False

    @property
    def is_full(self) -> bool:
        """Whether a caller must make its capture itself."""
        return self._is_closing or len(self._waiting) >= WAITING_MAX

    def put(self, settled: Settled) -> None:
        """Make a call's capture soon."""
        self._waiting.append(settled)
        if not self._is_due:
            self._is_due = True
            self._start(self._flush_soon())

    async def close(self) -> None:
        """Make what waits, then stop."""
        self._is_closing = True
        await self.finish()

    async def finish(self) -> bool:
        """Return once what waits now is captured; False when nothing did.

        Who waits may be cancelled; the captures go on.
        """
        if self._waiting:
            self._start(self._flush())
        if not self._tasks:
            return False
        await asyncio.wait(self._tasks)
        return True

    def _start(self, step: Awaitable[None]) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush_soon(self) -> None:
        await asyncio.sleep(self._linger_seconds)
        self._is_due = False
        await self._flush()

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            answers = await self._capture(waiting)
        except Exception as error:  # not even tried
            answers = [error] * len(waiting)
        failures = [
            answer  # a hold that has ended otherwise needs nothing
            for answer in answers
            if isinstance(answer, BaseException) and not isinstance(answer, Conflict)
        ]
        for failure in failures[:1]:
            text = failure.message if isinstance(failure, TallystickError) else repr(failure)
            _log.warning("%d captures of calls are left to recovery: %s", len(failures), text)
