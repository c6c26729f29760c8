"""Finds thousands of strings in a blob in one pass over its bytes.

The first six bytes of every needle are hashed into a table of 2^24 flags; every place of
the blob is hashed the same way, and only places whose flag is set are compared in Python.
One pass costs the same for one needle as for ten thousand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

ANCHOR_BYTES = 6
_TABLE_BITS = 24
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads similar words
_CHUNK_BYTES = 1 << 20


class ByteSearch:
    """Searches blobs for a fixed set of needles of at least six bytes."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._by_anchor: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for needle in needles:
            if len(needle) < ANCHOR_BYTES:
                raise ValueError(f"a needle has at least {ANCHOR_BYTES} bytes: {needle!r}")
            self._by_anchor[needle[:ANCHOR_BYTES]].append(needle)
        self._flags = np.zeros(1 << _TABLE_BITS, dtype=bool)
        self._flags[_hashes(b"".join(self._by_anchor))[::ANCHOR_BYTES]] = True

    def find(self, blob: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, needle) for every occurrence, in order of offset."""
        for start in range(0, max(len(blob) - ANCHOR_BYTES + 1, 0), _CHUNK_BYTES):
            hashes = _hashes(blob[start : start + _CHUNK_BYTES + ANCHOR_BYTES - 1])
            for place in np.flatnonzero(self._flags[hashes]).tolist():
                yield from self._compare(blob, start + place)

    def _compare(self, blob: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
        for needle in self._by_anchor.get(blob[offset : offset + ANCHOR_BYTES], ()):
            if blob.startswith(needle, offset):
                yield offset, needle


def _hashes(content: bytes) -> NDArray[np.uint64]:
    """The table place of every six bytes of `content`."""
    letters = np.frombuffer(content, dtype=np.uint8)
    places = max(letters.size - ANCHOR_BYTES + 1, 0)
    words = np.zeros(places, dtype=np.uint64)
    for step in range(ANCHOR_BYTES):
        words <<= np.uint64(8)
        words |= letters[step : step + places]
    words *= _SPREAD
    words >>= np.uint64(64 - _TABLE_BITS)
    return words
