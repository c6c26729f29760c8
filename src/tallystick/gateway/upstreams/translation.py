"""What each dialect can do: pure functions between a surface's bytes and an upstream's."""

from __future__ import annotations

from typing import Protocol
from urllib.parse import quote

from tallystick.errors import InvalidInput
from tallystick.gateway.model import Asked


class Unsupported(InvalidInput):
    """The upstream cannot be told this; it is refused rather than left out."""

    code = "unsupported_field"


class StreamTranslator(Protocol):
    """Turns one upstream's stream into the surface's events."""

    def feed(self, piece: bytes) -> bytes:
        """Take what came, cut anywhere; return the events that it completes."""
        ...

    def end(self) -> bytes:
        """What closes the stream, when the upstream said that it was whole; else nothing."""
        ...


class Translation(Protocol):
    """One surface at one kind of upstream."""

    speaks: str
    """The surface's protocol: the shape of errors."""

    def path(self, model: str, *, is_stream: bool) -> str:
        """Where the upstream is asked, below its base_url; raises Unsupported."""
        ...

    def body(self, asked: Asked, model: str, beta: str) -> bytes:
        """The upstream's request; `beta` is the app's anthropic-beta; raises Unsupported."""
        ...

    def answer(self, body: bytes, model: str, created: int) -> bytes:
        """A whole answer; raises msgspec.DecodeError when it cannot be read."""
        ...

    def error_message(self, body: bytes) -> str:
        """What an error answer says; "" when it says nothing that can be read."""
        ...

    def stream(self, model: str, created: int) -> StreamTranslator:
        """A translator for one stream."""
        ...


def quoted(model: str) -> str:
    """A model's name as one segment of a path: the caller names it, and no more than that.

    >>> quoted("anthropic.claude-v2:0/x")
    'anthropic.claude-v2%3A0%2Fx'
    """
    if not model.strip("."):
        raise Unsupported("model must be a name", field="model")
    return quote(model, safe="")
