"""Restoring: from the archive to facts; then the sink goes on with the log.

It does what the sink does, in its name and with its positions, so a crash is finished by either
of them.
"""

from __future__ import annotations

from tallystick.archive import ArchiveSource
from tallystick.plumbing.log import CORRECTIONS
from tallystick.workers.loop import Follower, Progress
from tallystick.workers.taking import Taking


class Restorer(Taking[ArchiveSource]):
    """Takes in the archive from the sink's position on."""

    def step(self) -> Progress:
        """Take in the next slice; NOTHING when the archive has no more."""
        found = self._source.read_slice()
        if found is None:
            return Progress.NOTHING
        first = found.table.column("log_offset")[0].as_py()
        self._intake.take_up(found.partition, found.epoch, first)
        is_correction = found.partition == CORRECTIONS
        take = self._intake.correct if is_correction else self._intake.take_in
        touched = take(found.table)
        self._finish(touched, {found.partition: found.offset_end})
        return Progress.FULL

    def close(self) -> None:
        """Let the source go."""
        self._source.close()


class RestoreThenFollow:
    """Restores first, then is the sink: one follower, so that the two never run at once."""

    name = "sink"

    def __init__(self, restorer: Restorer, sink: Follower) -> None:
        self._restorer: Restorer | None = restorer
        self._sink = sink

    def recover(self) -> None:
        """Read again from the stored positions."""
        (self._restorer or self._sink).recover()

    def step(self) -> bool | Progress:
        """Take in the next part of the archive, or of the log once that is done."""
        if self._restorer is not None:
            if progress := self._restorer.step():
                return progress
            self._restorer.close()
            self._restorer = None
            self._sink.recover()
        return self._sink.step()
