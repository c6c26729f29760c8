"""What all readers of streams share."""

from __future__ import annotations

from typing import Protocol

from tallystick.gateway.estimate import estimate_output
from tallystick.gateway.model import Seen
from tallystick.gateway.money import Usage


class StreamReader(Protocol):
    """Reads the events of one answer as they pass by."""

    seen: Seen
    text_bytes: int
    """Generated text so far: content, reasoning, tool arguments."""
    pieces: int
    """Events that carried some; each is a token at least."""
    is_ended: bool
    """The protocol's own last event was seen."""

    def read(self, event: bytes, text: bytes) -> bytes:
        """Take one event (and its data); return what the client is sent of it (b"": nothing)."""
        ...

    def ending(self, code: str, message: str, tokens_output: int) -> bytes:
        """The events that end the answer here, in the protocol's own way."""
        ...

    def failure(self, code: str, message: str) -> bytes:
        """The event that says that the answer broke off."""
        ...


def tokens_so_far(reader: StreamReader) -> int:
    """Output tokens generated so far, by estimate."""
    return estimate_output(reader.text_bytes, reader.pieces)


def estimated_usage(tokens_input: int, tokens_output: int) -> Usage:
    """Usage that nobody reported."""
    return Usage(tokens_input=tokens_input, tokens_output=tokens_output, quality="estimated")
