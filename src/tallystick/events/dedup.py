"""Deduplication: which delivery of an event is the original.

The index maps an event's identity (tenant, event id) to the log offset where it was first
seen and to a digest of its content. A delivery is the original exactly when its own offset
is the stored one; the same content elsewhere is a duplicate, other content a conflict.
So judging the same log again gives the same verdicts, and the index can be rebuilt from
the log. It remembers how far into the log it has come (`position`), written together with
the entries; `catch_up` reads what a crash or a lost answer left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from rocksdict import Options, Rdict, WriteBatch

from tallystick.events.batch import Identity, identities_of
from tallystick.plumbing.log.model import LogBatch, Verdict, decode_payload

_POSITION_KEY = b"\xffposition"  # no UTF-8 text begins with this byte
_ENTRY = struct.Struct(">Q16s")
_OFFSET = struct.Struct(">Q")


class DedupIndex:
    """The index of one log partition; one process owns it at a time."""

    def __init__(self, folder: Path) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(32 * 1024 * 1024)
        self._entries = Rdict(str(folder), options)
        stored = self._entries.get(_POSITION_KEY)
        self.position: int = _OFFSET.unpack(stored)[0] if stored else 0
        self._pending: dict[bytes, bytes] = {}

    def judge(self, identities: Sequence[Identity], offset_start: int) -> bytes:
        """Return one verdict a delivery, for offsets from `offset_start` on.

        The result counts only once `commit` is called; judging again starts afresh.
        """
        found: list[bytes | None] = self._entries.get([key for key, _ in identities]) or []
        self._pending = {}
        verdicts = bytearray(len(identities))
        for index, ((key, digest), stored) in enumerate(zip(identities, found, strict=True)):
            known = stored or self._pending.get(key)
            if known is None:
                self._pending[key] = _ENTRY.pack(offset_start + index, digest)
            elif known[8:] != digest:
                verdicts[index] = Verdict.CONFLICT
            elif _OFFSET.unpack_from(known)[0] != offset_start + index:
                verdicts[index] = Verdict.DUPLICATE
        return bytes(verdicts)

    def commit(self, offset_end: int) -> None:
        """Keep what the last `judge` found, now that the log holds it up to `offset_end`."""
        batch = WriteBatch(raw_mode=True)
        for key, entry in self._pending.items():
            batch.put(key, entry)
        batch.put(_POSITION_KEY, _OFFSET.pack(offset_end))
        self._entries.write(batch)
        self.position = offset_end
        self._pending = {}

    def catch_up(self, batches: Iterable[LogBatch]) -> None:
        """Take in log batches from `position` on."""
        for batch in batches:
            columns, _ = decode_payload(batch.payload)
            self.judge(identities_of(columns, batch.event_count), batch.offset_start)
            self.commit(batch.offset_end)

    def close(self) -> None:
        """Flush and release the folder."""
        self._entries.close()
