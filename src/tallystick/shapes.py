"""What msgspec knows of our types, worked out before threads ask for it.

msgspec (0.22) looks at a Struct's fields when it first reads one, and keeps what it found on the
type. While one thread does that, another that reads the same type finds half of it and crashes
the process: at a start, when several followers compile the same rate card at once, that is no
rare thing. So whoever starts threads calls `prepare_shapes` first.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


def prepare_shapes() -> None:
    """Let msgspec look at every Struct of the modules imported by now; again costs nothing."""
    for shape in set(_below(msgspec.Struct)):
        msgspec.json.Decoder(shape)


def _below(shape: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for one in shape.__subclasses__():
        yield one
        yield from _below(one)
