"""The usage log: what was acknowledged, in order, readable by any number of followers.

Owns offsets, batches and follower positions. Never looks into an event. A batch carries,
for each event, the verdict of the deduplication that ran before it was appended.
"""

from tallystick.plumbing.log.model import LogBatch, Verdict
from tallystick.plumbing.log.postgres import PostgresLog

__all__ = ["LogBatch", "PostgresLog", "Verdict"]
