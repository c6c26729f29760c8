"""What followers read besides the log in PostgreSQL: Kafka's partitions, and several at once.

A follower of Kafka owns a partition twice: by the consumer group, which spreads partitions
over processes, and by a lease in PostgreSQL, which says for certain that a process that hangs
or was cut off no longer writes results when another begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from tallystick.events.batch import Identity
from tallystick.events.dedup import DedupIndex
from tallystick.events.redaction import Redactor
from tallystick.events.stage import Stage
from tallystick.plumbing.leases import Leases
from tallystick.plumbing.log import Chunk, ClosedBefore, Positions, Source, never_closed
from tallystick.plumbing.log.kafka import (
    KafkaMessage,
    KafkaOptions,
    KafkaReader,
    KafkaWriter,
    is_compacted,
)

_READ_SECONDS = 0.1
_RETRY_SECONDS = 0.2

Known = Callable[[int, int, int], Iterable[tuple[Identity, int]]]
"""(partition, start, end) -> identities of what landed there, with their offsets."""


class KafkaSource:
    """Reads and judges the partitions of the topic that the group gives this process."""

    def __init__(
        self,
        options: KafkaOptions,
        writer: KafkaWriter | None,
        positions: Positions,
        leases: Leases,
        *,
        follower: str,
        instance_id: str,
        folder: Path,
        redactor: Redactor,
        key: bytes,
        known: Known,
        closed_before: ClosedBefore = never_closed,
    ) -> None:
        """`folder` holds the indexes: what is not there is rebuilt from what `known` tells.

        Without a writer broken messages are not set aside: another follower does that.
        """
        self._options = options
        self._writer = writer
        self._positions = positions
        self._leases = leases
        self._follower = follower
        self._instance_id = instance_id
        self._folder = folder
        self._redactor = redactor
        self._key = key
        self._known = known
        self._closed_before = closed_before
        self._epoch = 0
        self._reader: KafkaReader | None = None
        self._stages: dict[int, Stage] = {}
        self._noted: dict[int, int] = {}

    def read(self, events_max: int) -> list[Chunk]:
        """Return the next deliveries of each partition; [] when there are none."""
        if self._reader is None:
            self._reader = KafkaReader(
                self._options,
                group=f"tallystick-{self._follower}",
                instance_id=self._instance_id,
                on_assigned=self._begin,
                on_revoked=self._end,
            )
        self._leases.keep(map(self._lease, self._stages))
        self._note_progress(self._reader)
        found: dict[int, list[KafkaMessage]] = {
            partition: [] for partition, stage in self._stages.items() if stage.has_more
        }
        ends: dict[int, int] = {}
        if not found:
            found = self._reader.read(events_max, _READ_SECONDS)
            ends = self._reader.ends()
        chunks = []
        for partition in found.keys() | ends.keys():
            staged = self._stages[partition].take(found.get(partition, []), ends.get(partition, 0))
            if staged.broken and self._writer is not None:
                self._writer.append(self._options.broken_topic, staged.broken)
            chunks.append(staged.chunk)
        return chunks

    def _note_progress(self, reader: KafkaReader) -> None:
        """Tell lag monitors what earlier reads returned: that is the follower's past by now."""
        positions = {partition: stage.position for partition, stage in self._stages.items()}
        if moved := dict(positions.items() - self._noted.items()):
            reader.note_progress(moved)
            self._noted = positions

    def confirm(self, connection: psycopg.Connection[Any], partitions: Sequence[int]) -> None:
        """Raise LeaseLost unless these partitions are still ours."""
        own = [self._lease(one) for one in partitions if one in self._stages]
        if own:
            self._leases.require(connection, own)

    def rewind(self) -> None:
        """Leave the group and join it again: the same partitions, from the stored positions."""
        self.close()

    def close(self) -> None:
        """Let the partitions go."""
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.close()
        self._end(list(self._stages))

    def _lease(self, partition: int) -> str:
        return f"{self._follower}/{partition}"

    def _begin(self, partitions: Sequence[int]) -> dict[int, int]:
        names = [self._lease(partition) for partition in partitions]
        while len(self._leases.take(names)) < len(names):  # until the one before let go, or died
            time.sleep(_RETRY_SECONDS)
        stored = self._positions.load(self._follower)
        starts = self._reader.starts() if self._reader is not None else {}
        new = {one: starts.get(one, 0) for one in partitions if one not in stored}
        if new:  # what retention deleted before is missing for no reason of ours
            self._positions.begin(self._follower, new)
        self._epoch += 1
        begun = {}
        for partition in partitions:
            position = new[partition] if partition in new else stored[partition].offset
            self._stages[partition] = Stage(
                self._options.topic,
                partition,
                position,
                self._epoch,
                index=self._open_index(partition, position),
                redactor=self._redactor,
                key=self._key,
                is_compacted=partial(is_compacted, self._options),
                closed_before=self._closed_before,
            )
            begun[partition] = position
        return begun

    def _open_index(self, partition: int, position: int) -> DedupIndex:
        index = DedupIndex(self._folder / f"{self._options.topic}-{partition}")
        try:
            if index.position < position:
                index.learn(self._known(partition, index.position, position), position)
        except BaseException:
            index.close()  # else its lock would keep this process out for ever
            raise
        return index

    def _end(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            stage = self._stages.pop(partition, None)
            if stage is not None:
                stage.index.close()
        self._leases.release(map(self._lease, partitions))


class LeasedSource:
    """A source that only one process may read at a time: whoever has the lease."""

    def __init__(self, source: Source, leases: Leases, name: str) -> None:
        self._source = source
        self._leases = leases
        self._name = name

    def read(self, events_max: int) -> list[Chunk]:
        """Return what comes next; [] also while another process has the lease."""
        if self._leases.left(self._name) <= 0:
            if not self._leases.take([self._name]):
                return []
            self._source.rewind()
        self._leases.keep([self._name])
        return self._source.read(events_max)

    def confirm(self, connection: psycopg.Connection[Any], partitions: Sequence[int]) -> None:
        """Raise LeaseLost unless the lease is still ours."""
        self._leases.require(connection, [self._name])

    def rewind(self) -> None:
        """Begin again at the stored positions."""
        self._source.rewind()

    def close(self) -> None:
        """Let the lease go."""
        self._source.close()
        self._leases.release([self._name])


class JoinedSource:
    """Several sources of different partitions as one."""

    def __init__(self, sources: dict[Callable[[int], bool], Source]) -> None:
        """Each source with a test of the partitions that are its own."""
        self._sources = sources

    def read(self, events_max: int) -> list[Chunk]:
        """Return what comes next of all of them."""
        return [chunk for one in self._sources.values() for chunk in one.read(events_max)]

    def confirm(self, connection: psycopg.Connection[Any], partitions: Sequence[int]) -> None:
        """Each confirms its own partitions."""
        for is_own, one in self._sources.items():
            own = [partition for partition in partitions if is_own(partition)]
            if own:
                one.confirm(connection, own)

    def rewind(self) -> None:
        """Each begins again."""
        for one in self._sources.values():
            one.rewind()

    def close(self) -> None:
        """Each lets go."""
        for one in self._sources.values():
            one.close()
