"""A log in PostgreSQL that was set back: restored to an earlier point, while all else was not.

What was acknowledged after that point is in the log no more, and the offsets of it are given out
again, to other events. So before anything may be appended we look whether something knows of
offsets at which the log no longer is. An index that does is made anew from the log, which is exact;
facts and an archive that do are the only trace of what was lost: the start is refused, and
somebody must decide. Facts are looked at once more when a sink finds some at offsets that it
reads (`intake`): then they must be of the same events.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tallystick.analytics.store import FactStore
from tallystick.archive import Archive
from tallystick.errors import InvariantBroken, StoreUnavailable
from tallystick.events.dedup import REMEMBERED_FOR, DedupIndex
from tallystick.plumbing.log import PostgresLog
from tallystick.workers.memory import FOR_EVER

REMEDY = (
    "PostgreSQL was restored to an earlier point and the rest was not, so events that were "
    "acknowledged are lost in it; restore all of them to one point, or "
)


def require_facts_within(logs: Sequence[PostgresLog], facts: FactStore) -> None:
    """Raise InvariantBroken when facts or deliveries landed beyond the end of a partition.

    Rollups tell of facts that have expired since.
    """
    folded = facts.query_watermarks("rollup_minute")
    for log in logs:
        head = log.head()
        beyond = facts.query_landed_until(log.partition, head)
        landed = max(beyond, folded.get(log.partition, 0))
        if landed > head:
            raise InvariantBroken(
                f"the log of partition {log.partition} ends at {head}, but ClickHouse has facts "
                f"of it up to {landed}: {REMEDY}rebuild the facts from the log as it is now: "
                "tallystick replay --restored (docs/pipeline.md)"
            )


def require_archive_within(logs: Sequence[PostgresLog], archive: Archive) -> None:
    """Raise InvariantBroken when the archive goes beyond the end of a partition.

    An archive that cannot be reached is asked by nobody either: the archiver waits.
    """
    for log in logs:
        try:
            archived = archive.tail(log.partition).offset
        except StoreUnavailable:
            return
        head = log.head()
        if archived > head:
            raise InvariantBroken(
                f"the log of partition {log.partition} ends at {head}, but {archive.objects.url} "
                f"archives it up to {archived}. If it archives another log, give each its own; if "
                f"not: {REMEDY}set that archive aside, it has what was lost (rename its folder, "
                "or name an empty one), and rebuild the facts from the "
                "log as it is now: tallystick replay --restored (docs/pipeline.md)"
            )


def keep_indexes_within(data: Path, log: PostgresLog) -> None:
    """Throw away what this process's own indexes know beyond the end of the log.

    They are opened late, when the log may have grown past what they know; so it is done early.
    """
    head = log.head()
    folders = {
        data / "dedup-calls": REMEMBERED_FOR,
        data / "vault-memory" / str(log.partition): FOR_EVER,
    }
    for folder, remembered_for in folders.items():
        if folder.is_dir():
            index = DedupIndex(folder, remembered_for=remembered_for)
            index.keep_within(head)
            index.close()
