"""Reading the archive back in the order of the log: as columns, or as a follower's source.

Objects are fetched, checked against their hashes and decoded by a thread ahead of the reader.
Objects of one manifest whose ranges cross (the hour turned while deliveries were under way) are
merged by offset; all others stream by row group, so memory stays bounded by a few of those.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tallystick.archive.chain import Archive
from tallystick.archive.columns import DICTIONARIES, columns_of, completed
from tallystick.archive.model import ArchivedObject, hour_of
from tallystick.errors import InvariantBroken
from tallystick.plumbing.log import Chunk, Positions, Verdict
from tallystick.plumbing.objects import digest_of

_AHEAD = 3
"""Row groups that are decoded before they are asked for."""


class Slice(NamedTuple):
    """Deliveries of one partition as columns, in order of offset."""

    partition: int
    epoch: int
    table: pa.Table
    offset_end: int
    """The position after this slice."""


class ArchiveSource:
    """Reads every partition of the archive for one follower, from its stored positions on."""

    def __init__(self, archive: Archive, positions: Positions, follower: str) -> None:
        self._archive = archive
        self._positions = positions
        self._follower = follower
        self._epoch = 0
        self._slices: Iterator[Slice] | None = None
        self._ahead: deque[Future[Slice | None]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="archive-reader")
        self._rest: Slice | None = None

    def read_slice(self) -> Slice | None:
        """Return what comes next as columns, one row group or less; None at the end."""
        if self._slices is None:
            stored = self._positions.load(self._follower)
            offsets = {partition: stored[partition].offset for partition in stored}
            self._slices = self._read_all(offsets, self._epoch)
        while len(self._ahead) < _AHEAD:
            self._ahead.append(self._thread.submit(next, self._slices, None))
        return self._ahead.popleft().result()

    def read(self, events_max: int) -> list[Chunk]:
        """Return what comes next as a chunk of the log; [] when the archive has no more."""
        found = self._rest if self._rest is not None else self.read_slice()
        self._rest = None
        if found is None:
            return []
        if found.table.num_rows > events_max:
            rest = found.table.slice(events_max)
            self._rest = found._replace(table=rest)
            end = rest.column("log_offset")[0].as_py()
            found = found._replace(table=found.table.slice(0, events_max), offset_end=end)
        table = found.table
        offsets = table.column("log_offset").to_pylist()
        verdicts = bytes(table.column("verdict").to_pylist())
        columns = columns_of(table, found.partition)
        return [Chunk(found.partition, found.epoch, offsets, columns, verdicts, found.offset_end)]

    def confirm(self, connection: psycopg.Connection[Any], partitions: Sequence[int]) -> None:
        """Nobody else reads."""

    def rewind(self) -> None:
        """Begin again at the stored positions, with new epochs."""
        while self._ahead:
            self._ahead.popleft().exception()  # what failed is met again, if it still fails
        self._slices = self._rest = None
        self._epoch += 1

    def close(self) -> None:
        """Stop the thread that reads ahead."""
        self._thread.shutdown(cancel_futures=True)

    def _read_all(self, offsets: dict[int, int], epoch: int) -> Iterator[Slice]:
        for partition in self._archive.partitions():
            position = offsets.get(partition, 0)
            for link in self._archive.links(partition, position):
                if link.manifest.offset_end <= position:
                    continue
                for table in self._tables(link.manifest.objects, partition, position):
                    end = table.column("log_offset")[-1].as_py() + 1
                    is_last = end > max(one.offset_last for one in link.manifest.objects)
                    end = link.manifest.offset_end if is_last else end
                    yield Slice(partition, epoch, table, end)

    def _tables(
        self, objects: Sequence[ArchivedObject], partition: int, position: int
    ) -> Iterator[pa.Table]:
        wanted = sorted(
            (one for one in objects if one.offset_last >= position),
            key=lambda one: one.offset_first,
        )
        for group in _crossing(wanted):
            if len(group) == 1:
                file = self._open(group[0])
                for number in range(file.num_row_groups):
                    yield from self._from(file.read_row_group(number), partition, position)
            else:
                tables = [completed(self._open(one).read(), partition) for one in group]
                merged = pa.concat_tables(tables).sort_by("log_offset")
                yield from self._from(merged, partition, position)

    def _from(self, table: pa.Table, partition: int, position: int) -> Iterator[pa.Table]:
        offsets = table.column("log_offset")
        if table.num_rows and offsets[0].as_py() < position:
            keep = offsets.to_numpy() >= position
            table = table.filter(pa.array(keep))
        if table.num_rows:
            yield completed(table, partition)

    def _open(self, one: ArchivedObject) -> pq.ParquetFile:
        content = self._archive.objects.get(one.name)
        if digest_of(content) != one.sha256:
            raise InvariantBroken(f"the archive's {one.name} was changed since it was written")
        buffer = pa.BufferReader(content)
        names = pq.read_schema(buffer).names
        there = [name for name in names if name in DICTIONARIES]
        return pq.ParquetFile(buffer, read_dictionary=there)


def require_same_log(archive: Archive, chunk: Chunk) -> None:
    """Raise InvariantBroken when the archive holds another event where a chunk begins.

    Two logs in one archive would each take the other's ranges for their own.
    """
    if not chunk.offsets:
        return
    offset, row = chunk.offsets[0], [column[0] for column in chunk.values]
    for link in islice(archive.links(chunk.partition, offset), 1):
        for one in link.manifest.objects:
            if one.offset_first <= offset <= one.offset_last:
                table = pq.read_table(pa.BufferReader(archive.objects.get(one.name)))
                table = table.filter(pc.equal(table.column("log_offset"), offset))
                found = columns_of(completed(table, chunk.partition), chunk.partition)
                if table.num_rows and _differs([column[0] for column in found], row):
                    raise InvariantBroken(
                        f"{archive.objects.url} archives another log: its event at partition "
                        f"{chunk.partition}, offset {offset} is not ours; give each its own"
                    )


def _differs(archived: Sequence[Any], logged: Sequence[Any]) -> bool:
    """Whether an event is another; a field that an older writer did not know is None."""
    return any(
        mine != theirs for mine, theirs in zip(archived, logged, strict=False) if theirs is not None
    )


def identities_in(
    archive: Archive, partition: int, start: int, end: int, *, since: int
) -> Iterator[tuple[tuple[bytes, bytes], int]]:
    """Identities of originals in [start, end) received since then, each with its offset.

    An identity is (tenant and event id, content digest), as the deduplication index has it.
    """
    names = ["tenant_id", "event_id", "content_digest", "log_offset"]
    for link in archive.links(partition, start):
        if link.manifest.offset_start >= end:
            return
        for one in link.manifest.objects:
            if one.offset_last < start or one.offset_first >= end or one.hour < hour_of(since):
                continue
            table = pq.read_table(
                pa.BufferReader(archive.objects.get(one.name)), columns=[*names, "verdict"]
            )
            table = table.filter(pc.equal(table.column("verdict"), int(Verdict.ORIGINAL)))
            columns = (table.column(name).to_pylist() for name in names)
            for tenant, event_id, digest, offset in zip(*columns, strict=True):
                if start <= offset < end:
                    yield (f"{tenant}\0{event_id}".encode(), digest), offset


def _crossing(objects: Sequence[ArchivedObject]) -> Iterator[list[ArchivedObject]]:
    """Group objects, ordered by first offset, whose ranges of offsets cross."""
    group: list[ArchivedObject] = []
    last = -1
    for one in objects:
        if group and one.offset_first > last:
            yield group
            group = []
        group.append(one)
        last = max(last, one.offset_last)
    if group:
        yield group
