"""A streamed answer on its way: cut into events, each read and passed on or hidden."""

from __future__ import annotations

from tallystick.usage.model import Usage
from tallystick.usage.reading import StreamReader, tokens_so_far, used
from tallystick.usage.server_sent import EventSplitter, event_text


class StreamedAnswer:
    """One answer's stream, by the reader of its dialect."""

    def __init__(self, reader: StreamReader) -> None:
        self.reader = reader
        self._splitter = EventSplitter()

    def feed(self, piece: bytes) -> bytes:
        """Read the events that end in this piece; return what the client is sent of them."""
        read = self.reader.read
        return b"".join([read(event, event_text(event)) for event in self._splitter.feed(piece)])

    def end(self) -> bytes:
        """What the upstream left without an end; notes whether it was all of the answer."""
        rest, self._splitter.rest = self._splitter.rest, b""
        last = self.reader.read(rest, event_text(rest + b"\n\n")) if rest else b""
        seen = self.reader.seen
        if not self.reader.is_ended and not seen.error_code:
            seen.error_code = "upstream_cut"
        return last

    def usage(self, tokens_input: int) -> Usage:
        """What was used as far as it came; `tokens_input` is an estimate."""
        return used(self.reader.seen, tokens_input, tokens_so_far(self.reader))
