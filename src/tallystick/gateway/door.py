"""What stands before the gateway: who asks, how fast they may, and what is put on record.

The composition root gives the real door. A call's tokens are taken from its rate limits by
estimate, and corrected once when it is known what it used.
"""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request

from tallystick.access import Principal
from tallystick.enforcement.rates import Decision


class Door(Protocol):
    """Lets calls in, and keeps a record of them."""

    async def admit(self, request: Request) -> Principal:
        """Who asks; raises what the gate raises, SlowDown when nothing can be recorded."""
        ...

    async def take_tokens(self, request: Request, tokens: int) -> Decision:
        """Take tokens from the rate limits of who asks; raises TooManyRequests."""
        ...

    async def correct_tokens(self, principal: Principal, tokens: int) -> None:
        """Take what was used beyond the estimate; what is negative is given back."""
        ...

    def headers(self, request: Request) -> dict[str, str]:
        """Where who asks stands with their rate limits."""
        ...

    def note(self, request: Request, route: str, status: int, code: str, started: float) -> None:
        """Record what was answered."""
        ...


class TokenRate:
    """What one call took from rate limits of tokens; corrected once, later attempts add."""

    def __init__(self, door: Door, principal: Principal, tokens: int) -> None:
        self._door = door
        self._principal = principal
        self._taken = tokens

    async def used(self, tokens: int) -> None:
        """Count what an attempt used."""
        more, self._taken = tokens - self._taken, 0
        if more:
            await self._door.correct_tokens(self._principal, more)
