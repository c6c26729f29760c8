"""Server-sent events cut out of a byte stream that may be split anywhere.

Format: WHATWG HTML, "Server-sent events": an event ends with an empty line; lines end with
LF, CR LF or CR, also mixed; a stream may begin with a byte order mark. Providers send LF or CR LF.
"""

from __future__ import annotations

import re

from tallystick.usage.reading import MARK

EVENT_BYTES_MAX = 32 * 1024 * 1024
"""An event beyond this (a picture has a few MiB) is not read; it is passed on all the same."""

_END = re.compile(rb"\n(?:\n|\r\n?)|\r(?:\n(?:\n|\r\n?)|\r\n?)")
"""The end of a line, and of the empty one after it; as alternatives that are found fast."""
_DATA = re.compile(rb"(?:^|[\r\n])data:[ ]?([^\r\n]*)")


class EventSplitter:
    """Takes pieces, gives whole events with their ends; `rest` is what has not ended yet."""

    def __init__(self) -> None:
        self.rest = b""
        self._looked = 0
        """Bytes of the rest in which no end is."""

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the events that end within this piece.

        >>> splitter = EventSplitter()
        >>> splitter.feed(b"data: 1\\n"), splitter.feed(b"\\ndata: 2\\n\\n")
        ([], [b'data: 1\\n\\n', b'data: 2\\n\\n'])
        """
        if not self.rest and 0 <= piece.find(b"\n\n") == len(piece) - 2 and b"\r" not in piece:
            return [piece]  # one whole event, as most pieces are
        text = self.rest + piece if self.rest else piece
        events: list[bytes] = []
        start = 0
        for match in _END.finditer(text, self._looked):
            if match.end() == len(text) and text.endswith(b"\r"):
                break  # it may be the first half of a CR LF
            events.append(text[start : match.end()])
            start = match.end()
        self.rest = text[start:]
        self._looked = max(len(self.rest) - 3, 0)
        if len(self.rest) > EVENT_BYTES_MAX:
            events.append(self.rest)
            self.rest, self._looked = b"", 0
        return events


def event_text(event: bytes) -> bytes:
    """The data of an event, b"" when it has none (a comment).

    >>> event_text(b'event: ping\\ndata: {"a":1}\\n\\n')
    b'{"a":1}'
    """
    is_one_line = event.endswith(b"\n\n") and event.count(b"\n") == 2 and b"\r" not in event
    if is_one_line and event.startswith(b"data: "):
        return event[6:-2]
    return b"\n".join(_DATA.findall(event.removeprefix(MARK)))
