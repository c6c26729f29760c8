"""What the vault remembers of identities for ever, to judge late events as the sink does.

An index of deduplication forgets after a while. For an event that is older than that by its own
time the sink asks the facts whether an earlier one is known; the vault may not ask ClickHouse, so
it keeps an index of its own that never forgets, and comes to the same verdict: the first
delivery of an identity is the original. The log in PostgreSQL is kept for ever, so there the
index is read from it when the first late event comes, and can be thrown away. Kafka forgets, so
there each chunk is remembered as it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tallystick.bounds import LATE_AFTER
from tallystick.events.batch import Identity, identities_of
from tallystick.events.dedup import DedupIndex
from tallystick.events.model import EVENT_FIELDS
from tallystick.plumbing.log import Chunk, PostgresLog, Verdict
from tallystick.plumbing.log.packing import integers_of

FOR_EVER = 0
_BATCHES_AT_ONCE = 64
_OCCURRED, _RECEIVED = (EVENT_FIELDS.index(name) for name in ("occurred_at", "received_at"))
Verdicts = npt.NDArray[np.uint8]


class Memory(Protocol):
    """Sets the verdicts of late events right."""

    def judge(self, chunk: Chunk) -> Verdicts:
        """The verdicts of a chunk, late originals that are none set right."""
        ...

    def close(self) -> None:
        """Let the index go."""
        ...


class LogMemory:
    """Reads the log in PostgreSQL itself, up to the late event in question."""

    def __init__(self, logs: Sequence[PostgresLog], folder: Path) -> None:
        self._logs = {log.partition: log for log in logs}
        self._indexes = _Indexes(folder)

    def judge(self, chunk: Chunk) -> Verdicts:
        """The verdicts of a chunk, late originals that are none set right."""
        if not is_late(chunk).any():
            return np.frombuffer(chunk.verdicts, np.uint8)
        index, log = self._indexes.open(chunk.partition), self._logs[chunk.partition]
        while index.position < chunk.offset_end:
            index.catch_up(log.read(index.position, batches_max=_BATCHES_AT_ONCE))
        return judge_late(chunk, index)

    def close(self) -> None:
        """Let the indexes go."""
        self._indexes.close()


Known = Callable[[int, int, int], Iterable[tuple[Identity, int]]]


class TopicMemory:
    """Remembers each chunk of Kafka; `known` tells what it can when the index was lost."""

    def __init__(self, folder: Path, known: Known) -> None:
        self._known = known
        self._indexes = _Indexes(folder)

    def judge(self, chunk: Chunk) -> Verdicts:
        """The verdicts of a chunk, late originals that are none set right."""
        index, start = self._indexes.open(chunk.partition), chunk.offsets[0]
        if index.position < start:  # it was lost, or another process read meanwhile
            index.learn(self._known(chunk.partition, index.position, start), start)
        verdicts = judge_late(chunk, index)
        index.commit(chunk.offset_end)
        return verdicts

    def close(self) -> None:
        """Let the indexes go."""
        self._indexes.close()


class _Indexes:
    """Indexes that never forget, one a partition, opened when they are needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[int, DedupIndex] = {}

    def open(self, partition: int) -> DedupIndex:
        if partition not in self._open:
            folder = self._folder / str(partition)
            self._open[partition] = DedupIndex(folder, remembered_for=FOR_EVER)
        return self._open[partition]

    def close(self) -> None:
        for index in self._open.values():
            index.close()
        self._open = {}


def judge_late(chunk: Chunk, index: DedupIndex) -> Verdicts:
    """Ask an index that never forgets about the late originals of a chunk."""
    judged = np.frombuffer(chunk.verdicts, np.uint8).copy()
    ever = index.judge(identities_of(chunk.values, len(chunk.offsets)), chunk.offsets)
    rows = is_late(chunk)
    judged[rows] = np.frombuffer(ever, np.uint8)[rows]
    return judged


def is_late(chunk: Chunk) -> npt.NDArray[np.bool_]:
    """Which originals are older than an index remembers, by their own time."""
    received, occurred = (integers_of(chunk.columns[at]) for at in (_RECEIVED, _OCCURRED))
    late = np.broadcast_to(received - occurred > LATE_AFTER, len(chunk.offsets))
    rows: npt.NDArray[np.bool_] = late & (
        np.frombuffer(chunk.verdicts, np.uint8) == Verdict.ORIGINAL
    )
    return rows
