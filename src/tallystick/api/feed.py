"""Who watches which account: one look for all of them, four times a second.

The look asks how far the watched accounts are, whoever moved them: this process, a worker or
another server.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from tallystick.errors import SlowDown, TallystickError
from tallystick.ledger import Ledger

STREAMS_MAX = 1_000
"""Open streams in one process."""

_LOOK_SECONDS = 0.25
_KEEP_ALIVE_LOOKS = 60


class BalanceFeed:
    """Tells streams when their account has moved."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._watched: Counter[str] = Counter()
        self._sequences: dict[str, int] = {}
        self._looked = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def changes(self, account_id: str) -> AsyncIterator[int | None]:
        """Yield the account's sequence now and after each move; None: nothing for a while."""
        if self._watched.total() >= STREAMS_MAX:
            raise SlowDown("too many balance streams are open")
        self._watched[account_id] += 1
        try:
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look())
            seen, idle = -1, 0
            while True:
                async with self._looked:
                    await self._looked.wait()
                sequence = self._sequences.get(account_id, seen)
                idle += 1
                if sequence != seen:
                    seen, idle = sequence, 0
                    yield sequence
                elif idle >= _KEEP_ALIVE_LOOKS:
                    idle = 0
                    yield None
        finally:
            self._watched[account_id] -= 1
            if not self._watched[account_id]:
                del self._watched[account_id]

    async def _look(self) -> None:
        while self._watched:
            try:
                accounts = list(self._watched)
                self._sequences = await asyncio.to_thread(self._ledger.load_sequences, accounts)
            except TallystickError:
                pass  # looked at again in a moment
            async with self._looked:
                self._looked.notify_all()
            await asyncio.sleep(_LOOK_SECONDS)
