"""Server-sent events on their way to the caller: read, and passed on or hidden. Pure.

Bytes go through as they are; only when usage was asked for on the caller's behalf is the
stream cut at event borders, so that the one event which says nothing but usage can be left
out. A whole event is passed on with the bytes that complete it.
"""

from __future__ import annotations

import re

import msgspec

from tallystick.sdk.metering.answers import Reading

_BORDER = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_EVENT_BYTES_MAX = 16 * 1024 * 1024


class EventFilter:
    """Reads a stream for its usage."""

    def __init__(self, reading: Reading, *, hides_usage: bool) -> None:
        self._reading = reading
        self._hides_usage = hides_usage
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of the provider; return those for the caller."""
        text = self._rest + chunk
        passed: list[bytes] = []
        start = 0
        # no border is in what was looked through: a picture of megabytes comes in many chunks
        for border in _BORDER.finditer(text, max(len(self._rest) - 3, 0)):
            event = text[start : border.end()]
            if not self._take(event):
                passed.append(event)
            start = border.end()
        self._rest = text[start:]
        if len(self._rest) > _EVENT_BYTES_MAX:
            self._hides_usage = False  # no stream of events: let it through
        if not self._hides_usage:
            return chunk if len(self._rest) <= _EVENT_BYTES_MAX else self._let_go(chunk)
        return b"".join(passed)

    def _let_go(self, chunk: bytes) -> bytes:
        self._rest = b""
        return chunk

    def end(self) -> bytes:
        """What is left when the provider has ended."""
        rest, self._rest = self._rest, b""
        if rest and self._take(rest):
            return b""
        return rest if self._hides_usage else b""

    def _take(self, event: bytes) -> bool:
        """Read one event; True when the caller should not see it."""
        lines = [line for line in event.splitlines() if line.startswith(b"data:")]
        text = b"\n".join(line[5:].strip() for line in lines)
        if not text.startswith(b"{"):
            return False
        try:
            content = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return False
        says_usage_alone = self._reading.take_event(content)
        return says_usage_alone and self._hides_usage
