"""The usage log: what was acknowledged, in order, readable by any number of followers.

Owns offsets, batches and follower positions. Never looks into an event. A batch carries,
for each event, the verdict of the deduplication that ran before it was appended.
"""

from tallystick.plumbing.log.horizons import (
    ClosedBefore,
    Horizon,
    Horizons,
    KnownHorizons,
    never_closed,
)
from tallystick.plumbing.log.model import CORRECTIONS, Chunk, LogBatch, Source, Verdict
from tallystick.plumbing.log.positions import Position, Positions
from tallystick.plumbing.log.postgres import PostgresLog, PostgresSource

__all__ = [
    "CORRECTIONS",
    "Chunk",
    "ClosedBefore",
    "Horizon",
    "Horizons",
    "KnownHorizons",
    "LogBatch",
    "Position",
    "Positions",
    "PostgresLog",
    "PostgresSource",
    "Source",
    "Verdict",
    "never_closed",
]
