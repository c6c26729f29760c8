"""The archiver: from the usage log to Parquet objects, asking neither ClickHouse nor the sink.

A flush stores the data objects, then the manifest, then the position, in this order, so at any
crash the manifests are right and the position is at or behind them; the end of the chain, not
the position, says where to go on. A manifest's name claims its range: when another archiver was
faster, the loser forgets what it gathered and reads again from the end of the chain.
"""

from __future__ import annotations

import logging

from tallystick.archive import Archive, PartitionBuffer, Tail, expire, require_same_log, table_of
from tallystick.clock import HOUR, SECOND, Clock, is_over
from tallystick.errors import Conflict
from tallystick.plumbing.log import Chunk, Positions, Source
from tallystick.workers.loop import Progress

EVENTS_PER_STEP_MAX = 20_000
"""Deliveries read at once: enough to be fast, few enough to hold the interpreter briefly."""

FLUSH_ROWS = 500_000
"""About 25 MB of Parquet: good objects to read, and little to gather again after a crash."""

FLUSH_SECONDS = 60
"""Time between flushes that are not full: 1,440 manifests a day, whatever the load."""

_EXPIRE_EVERY = HOUR
_log = logging.getLogger(__name__)


class Archiver:
    """Follows every partition of the log into the archive."""

    name = "archiver"

    def __init__(
        self,
        source: Source,
        positions: Positions,
        archive: Archive,
        clock: Clock,
        *,
        days: int = 0,
        flush_rows: int = FLUSH_ROWS,
        flush_seconds: int = FLUSH_SECONDS,
    ) -> None:
        """`days` is how long the archive is kept; 0 keeps it for ever."""
        self._source = source
        self._positions = positions
        self._archive = archive
        self._clock = clock
        self._days = days
        self._flush_rows = flush_rows
        self._flush_after = flush_seconds * SECOND
        self._buffers: dict[int, PartitionBuffer] = {}
        self._tails: dict[int, Tail] = {}
        self._epochs: dict[int, int] = {}
        self._is_begun = False
        self._waiting_since = 0
        self._flushed_at = 0
        self._expired_at = clock.now()

    def recover(self) -> None:
        """Forget what was gathered; read again from the ends of the chains."""
        self._buffers, self._tails, self._epochs = {}, {}, {}
        self._is_begun = False
        self._source.rewind()

    def step(self) -> Progress:
        """Gather the next deliveries, and store them when it is time."""
        if not self._is_begun:
            self._begin()
        events_max = min(EVENTS_PER_STEP_MAX, self._flush_rows)
        chunks = self._source.read(events_max)
        if not all(self._take_up(chunk) for chunk in chunks):
            self.recover()
            return Progress.FULL
        for chunk in chunks:
            self._gather(chunk)
        is_flushed = self._is_due(is_idle=not chunks) and self.flush()
        self._expire_old()
        if sum(len(chunk.offsets) for chunk in chunks) >= events_max:
            return Progress.FULL
        return Progress.SOME if chunks or is_flushed else Progress.NOTHING

    def _begin(self) -> None:
        """Set back positions beyond the end of their chain: the archive is new, or was lost."""
        stored = self._positions.load(self.name)
        tails = {partition: self._archive.tail(partition).offset for partition in stored}
        ahead = {
            partition: tail for partition, tail in tails.items() if stored[partition].offset > tail
        }
        if ahead:
            self._positions.commit(self.name, ahead, self._clock.now())
            self._source.rewind()
        self._is_begun = True

    def _take_up(self, chunk: Chunk) -> bool:
        """Make sure that a partition is read from the end of its chain; False to read again."""
        if self._epochs.get(chunk.partition) == chunk.epoch:
            return True
        tail = self._archive.tail(chunk.partition)
        self._buffers.pop(chunk.partition, None)
        position = self._positions.offset(self.name, chunk.partition)
        if position < tail.offset:
            require_same_log(self._archive, chunk)
        if position != tail.offset:
            self._positions.commit(self.name, {chunk.partition: tail.offset}, self._clock.now())
            return False
        if chunk.offsets and chunk.offsets[0] < tail.offset:
            return False  # another archiver went on between our read and now
        self._tails[chunk.partition] = tail
        self._epochs[chunk.partition] = chunk.epoch
        return True

    def _gather(self, chunk: Chunk) -> None:
        if not self._buffers:
            self._waiting_since = self._clock.now()
        buffer = self._buffers.get(chunk.partition)
        if buffer is None:
            buffer = PartitionBuffer(chunk.partition, self._tails[chunk.partition].offset)
            self._buffers[chunk.partition] = buffer
        buffer.add(table_of(chunk), chunk.offset_end)

    def _is_due(self, *, is_idle: bool) -> bool:
        """When there is enough; else, not again within the flush time, once all is read."""
        if not self._buffers:
            return False
        if sum(buffer.rows for buffer in self._buffers.values()) >= self._flush_rows:
            return True
        since = self._flushed_at if is_idle else max(self._waiting_since, self._flushed_at)
        return is_over(self._flush_after, since, self._clock.now())

    def flush(self) -> bool:
        """Store everything gathered: objects, manifests, positions."""
        ends: dict[int, int] = {}
        for partition in sorted(self._buffers):
            try:
                self._tails[partition] = self._store(self._buffers[partition])
            except Conflict as error:
                _log.warning("another archiver was faster: %s", error.message)
                self.recover()
                return True
            ends[partition] = self._tails[partition].offset
        self._buffers = {}
        self._flushed_at = self._clock.now()
        self._positions.commit(self.name, ends, self._flushed_at)
        return True

    def _store(self, buffer: PartitionBuffer) -> Tail:
        sealed, manifest = buffer.seal(self._tails[buffer.partition].digest, self._clock.now())
        for one in sealed:
            self._archive.objects.put_new(one.entry.name, one.content)
        return self._archive.append(manifest)

    def _expire_old(self) -> None:
        now = self._clock.now()
        if not self._days or not is_over(_EXPIRE_EVERY, self._expired_at, now):
            return
        self._expired_at = now
        stored = self._positions.load("sink")
        landed = {partition: stored[partition].offset for partition in stored}
        expire(self._archive, days=self._days, landed=landed, now=now)
