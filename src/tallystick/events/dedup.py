"""Deduplication: which delivery of an event is the original.

The index maps an event's identity (tenant, event id) to the log offset where it was first
seen and to a digest of its content. A delivery is the original exactly when its own offset
is the stored one; the same content elsewhere is a duplicate, other content a conflict.
So judging the same log again gives the same verdicts, and the index can be rebuilt from
the log. It remembers how far into the log it has come (`position`), written together with
the entries; `catch_up` reads what a crash or a lost answer left out.

Entries are forgotten REMEMBERED_FOR after they were written, so the index is bounded by what
comes in that time. A repeat that is older by its own time is looked up in the facts by the
sink; one that claims to be new is found by the verifier, which reverses it.
"""

from __future__ import annotations

import logging
import shutil
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    WriteBatch,
)

from tallystick.bounds import LATE_AFTER
from tallystick.clock import DAY, SECOND
from tallystick.events.batch import Identity, identities_of
from tallystick.plumbing.log.model import LogBatch, Verdict, decode_payload

_log = logging.getLogger(__name__)
_POSITION_KEY = b"\xffposition"  # no UTF-8 text begins with this byte
_ENTRY = struct.Struct(">Q16s")
_OFFSET = struct.Struct(">Q")
REMEMBERED_FOR = LATE_AFTER + 2 * DAY
"""How long an identity is remembered at least: the late window and some."""

_CACHE_BYTES = 64 * 1024 * 1024
_BLOOM_BITS = 10
"""A bit over 1% of look-ups of new identities read a block in vain."""


class DedupIndex:
    """The index of one log partition; one process owns it at a time."""

    def __init__(self, folder: Path, *, remembered_for: int = REMEMBERED_FOR) -> None:
        """`remembered_for` is in micros; 0 is for ever."""
        self._folder = folder
        self._remembered_for = remembered_for
        self._open()

    def _open(self) -> None:
        table = BlockBasedOptions()
        table.set_bloom_filter(_BLOOM_BITS, False)
        table.set_block_cache(Cache(_CACHE_BYTES))
        table.set_cache_index_and_filter_blocks(True)
        # in small pieces: a file's whole filter is larger than a shard of the cache, and would
        # be read anew at each look-up, which tripled the cost of an event
        table.set_index_type(BlockBasedIndexType.two_level_index_search())
        table.set_partition_filters(True)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(32 * 1024 * 1024)
        # almost every look-up is of a new identity: a bloom filter over what is in memory spares
        # the walk through its skip list
        options.set_memtable_prefix_bloom_ratio(0.1)
        options.set_memtable_whole_key_filtering(True)
        options.set_block_based_table_factory(table)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._entries = Rdict(
            str(self._folder),
            options,
            # named, or a folder that is opened again takes the options stored in it: with their
            # time to live applied twice, which forgets entries at random, and without the filter
            column_families={"default": options},
            access_type=AccessType.with_ttl(self._remembered_for // SECOND),
        )
        stored = self._entries.get(_POSITION_KEY)
        self.position: int = _OFFSET.unpack(stored)[0] if stored else 0
        self._pending: dict[bytes, bytes] = {}

    def keep_within(self, head: int) -> None:
        """Begin anew, at offset 0, when the log ends before `position`.

        Then the log was set back: it was restored to an earlier point. What the index holds
        beyond it was lost there, and whoever sends that again must not hear "duplicate".
        """
        if self.position <= head:
            return
        _log.warning(
            "the log ends at %d, the index %s at %d: it is made anew from the log",
            head,
            self._folder,
            self.position,
        )
        self._entries.close()
        lost = self._folder.with_name(f"{self._folder.name}.lost")
        shutil.rmtree(lost, ignore_errors=True)
        self._folder.rename(lost)  # at once: half an index would not open
        shutil.rmtree(lost, ignore_errors=True)
        self._open()

    def judge(self, identities: Sequence[Identity], offsets: Sequence[int]) -> bytes:
        """Return one verdict a delivery; each has its offset in the log.

        The result counts only once `commit` is called; judging again starts afresh.
        """
        found: list[bytes | None] = self._entries.get([key for key, _ in identities]) or []
        pending: dict[bytes, bytes] = {}
        verdicts = bytearray(len(identities))
        for index, ((key, digest), stored, offset) in enumerate(
            zip(identities, found, offsets, strict=True)
        ):
            entry = _ENTRY.pack(offset, digest)
            known = stored or pending.setdefault(key, entry)
            if known != entry:
                is_same = known[_OFFSET.size :] == digest
                verdicts[index] = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
        self._pending = pending
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
            offsets = range(batch.offset_start, batch.offset_end)
            self.judge(identities_of(columns, batch.event_count), offsets)
            self.commit(batch.offset_end)

    def learn(self, known: Iterable[tuple[Identity, int]], offset_end: int) -> None:
        """Take in identities with the offsets where they were first seen."""
        for (key, digest), offset in known:
            self._pending[key] = _ENTRY.pack(offset, digest)
        self.commit(offset_end)

    def __len__(self) -> int:
        """How many entries there are, about."""
        return int(self._entries.property_int_value("rocksdb.estimate-num-keys") or 0)

    def close(self) -> None:
        """Flush and release the folder."""
        self._entries.close()
