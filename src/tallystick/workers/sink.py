"""The sink: from the usage log to priced facts.

One step reads a chunk of each partition, keeps the originals, prices them, appends facts and
deliveries, and only then moves its positions, together with the list of runs to charge. A
crash anywhere in between repeats the step: what already landed is read back and left out, so
each event becomes exactly one fact.
"""

from __future__ import annotations

import pyarrow as pa

from tallystick.archive import table_of
from tallystick.plumbing.log import CORRECTIONS, Source
from tallystick.workers.intake import Touched
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
            first = chunk.offsets[0] if chunk.offsets else chunk.offset_end
            self._intake.take_up(chunk.partition, chunk.epoch, first)
        touched: Touched = {}
        usage = [table_of(chunk) for chunk in chunks if chunk.partition != CORRECTIONS]
        if usage:
            touched = self._intake.take_in(pa.concat_tables(usage))
        for chunk in chunks:
            if chunk.partition == CORRECTIONS:
                touched |= self._intake.correct(table_of(chunk))
        self._finish(touched, {chunk.partition: chunk.offset_end for chunk in chunks})
        is_full = sum(len(chunk.offsets) for chunk in chunks) >= EVENTS_PER_STEP_MAX
        return Progress.FULL if is_full else Progress.SOME
