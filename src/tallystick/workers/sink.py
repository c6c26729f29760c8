"""The sink: from the usage log to priced facts.

One step reads a chunk of each partition, keeps the originals, prices them, appends facts and
deliveries, and only then moves its positions, together with the list of runs to charge. A
crash anywhere in between repeats the step: what already landed is read back and left out, so
each event becomes exactly one fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from tallystick.events.model import EVENT_FIELDS
from tallystick.events.promotion import DEFAULTS, fill_columns
from tallystick.plumbing.log import CORRECTIONS, Chunk, Source
from tallystick.plumbing.log.columns import complete, concat
from tallystick.workers.intake import Deliveries, Touched, verdicts_of
from tallystick.workers.loop import Progress
from tallystick.workers.taking import Taking

EVENTS_PER_STEP_MAX = 100_000


class Sink(Taking[Source]):
    """Follows partitions of the log into the facts."""

    def step(self) -> Progress:
        """Take in the next deliveries."""
        chunks = self._source.read(EVENTS_PER_STEP_MAX)
        if not chunks:
            return Progress.NOTHING
        for chunk in chunks:
            self._intake.take_up(chunk.partition, chunk.epoch)
        touched: Touched = {}
        usage = [one for one in chunks if one.partition != CORRECTIONS]
        if usage:
            touched = self._intake.take_in(_gather(usage))
        for chunk in chunks:
            if chunk.partition == CORRECTIONS:
                touched |= self._intake.correct(chunk.columns, chunk.offsets)
        self._finish(touched, {chunk.partition: chunk.offset_end for chunk in chunks})
        is_full = sum(len(chunk.offsets) for chunk in chunks) >= EVENTS_PER_STEP_MAX
        return Progress.FULL if is_full else Progress.SOME


def _gather(chunks: Sequence[Chunk]) -> Deliveries:
    counts = [len(chunk.offsets) for chunk in chunks]
    completed = [
        (count, complete(fill_columns(chunk.columns, count), DEFAULTS))
        for count, chunk in zip(counts, chunks, strict=True)
    ]
    columns = dict(zip(EVENT_FIELDS, concat(completed), strict=True))
    partitions = [(count, [[one.partition]]) for count, one in zip(counts, chunks, strict=True)]
    return Deliveries(
        columns=columns,
        rated_by=columns,
        partitions=concat(partitions)[0],
        offsets=list(chain.from_iterable(chunk.offsets for chunk in chunks)),
        verdicts=verdicts_of(b"".join(chunk.verdicts for chunk in chunks)),
    )
