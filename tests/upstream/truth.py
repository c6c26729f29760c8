"""What the scripted upstream would bill: by request, as a provider's own books are.

A request is written down before its answer is sent: a provider bills what it generated,
whoever was there to read it. A stream is billed for the tokens that it had generated when
its reader went away.
"""

from __future__ import annotations

import msgspec


class Billed(msgspec.Struct):
    """One request as the provider bills it."""

    number: int
    request_id: str
    """The caller's own (X-Client-Request-Id)."""
    surface: str
    model: str
    status: int
    tokens_input: int = 0
    tokens_output: int = 0
    tokens_cached: int = 0
    tokens_written: int = 0
    tokens_reasoning: int = 0
    is_finished: bool = False
    key: str = ""
    """The key that it was asked with."""


class Truth:
    """The provider's books, in memory, for as long as it runs."""

    def __init__(self) -> None:
        self.requests: list[Billed] = []
        self.counts: dict[str, int] = {}

    def seen(self, key: str) -> int:
        """How often a script's key came before."""
        count = self.counts.get(key, 0)
        self.counts[key] = count + 1
        return count

    def encode(self) -> bytes:
        """All of it as JSON."""
        return msgspec.json.encode({"requests": self.requests})
