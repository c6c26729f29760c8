"""What the archive consists of, and how its objects are named.

    events/received=2026-11-21T10/p000-<first offset>-<last offset>-<digest>.parquet
    corrections/received=.../...
    manifest/p000/<offset_start>.json      what one flush wrote: the truth
    expired/p000/<offset_end>.json         everything before this offset was deleted on purpose

The name of a manifest is the claim of a range: it is created or refused, so no two archivers
hold the same range. A data object that no manifest names is garbage. The digest in a data
object's name lets a repeated flush, cut or compressed otherwise, lie beside what a crash left.
"""

from __future__ import annotations

import msgspec

from tallystick.clock import HOUR, to_datetime
from tallystick.plumbing.log import CORRECTIONS

FORMAT = 1
EVENTS_FOLDER = "events/"
CORRECTIONS_FOLDER = "corrections/"
MANIFEST_FOLDER = "manifest/"
EXPIRED_FOLDER = "expired/"
_DIGEST_CHARACTERS = 16


class ArchivedObject(msgspec.Struct, frozen=True):
    """One Parquet object: deliveries of one partition and one hour of receipt."""

    name: str
    sha256: str
    byte_count: int
    rows: int
    offset_first: int
    offset_last: int
    hour: str
    """The hour of receipt (UTC), such as 2026-11-21T10."""


class Manifest(msgspec.Struct, frozen=True):
    """What one flush wrote of one partition: all deliveries of [offset_start, offset_end)."""

    format: int
    partition: int
    offset_start: int
    offset_end: int
    rows: int
    objects: list[ArchivedObject]
    fields: list[str]
    """Columns of the objects, in order."""
    previous: str
    """SHA-256 of the manifest before; empty for the first."""
    written_at: str


class Expired(msgspec.Struct, frozen=True):
    """A note that a partition's beginning was deleted on purpose; the chain goes on from it."""

    format: int
    partition: int
    offset_end: int
    """The archive holds nothing before this offset any more."""
    previous: str
    """SHA-256 of the last manifest that was deleted."""
    rows: int
    """Deliveries deleted by this expiry."""
    hour_last: str
    expired_at: str


def hour_of(micros: int) -> str:
    """Name the hour of an instant.

    >>> hour_of(0)
    '1970-01-01T00'
    """
    return to_datetime(micros // HOUR * HOUR).strftime("%Y-%m-%dT%H")


def partition_name(partition: int) -> str:
    """Name a partition.

    >>> partition_name(7)
    'p007'
    """
    return f"p{partition:03d}"


def object_name(partition: int, hour: str, offset_first: int, offset_last: int, sha256: str) -> str:
    """Name a data object."""
    folder = CORRECTIONS_FOLDER if partition == CORRECTIONS else EVENTS_FOLDER
    return (
        f"{folder}received={hour}/{partition_name(partition)}-{offset_first:020d}"
        f"-{offset_last:020d}-{sha256[:_DIGEST_CHARACTERS]}.parquet"
    )


def manifest_name(partition: int, offset_start: int) -> str:
    """Name the manifest that claims a range from `offset_start` on.

    >>> manifest_name(0, 1234)
    'manifest/p000/00000000000000001234.json'
    """
    return f"{MANIFEST_FOLDER}{partition_name(partition)}/{offset_start:020d}.json"


def expired_name(partition: int, offset_end: int) -> str:
    """Name the note that everything before `offset_end` is gone."""
    return f"{EXPIRED_FOLDER}{partition_name(partition)}/{offset_end:020d}.json"


def partition_of(name: str) -> int:
    """Read the partition from the name of a manifest or a note.

    >>> partition_of(manifest_name(7, 0))
    7
    """
    return int(name.split("/")[-2].removeprefix("p"))


def offset_of(name: str) -> int:
    """Read the offset from the name of a manifest or a note.

    >>> offset_of(manifest_name(7, 1234))
    1234
    """
    return int(name.rpartition("/")[2].removesuffix(".json"))


def place_of(name: str) -> tuple[int, int]:
    """Read (partition, first offset) from the name of a data object.

    >>> place_of(object_name(7, "2026-11-21T10", 12, 34, "ab" * 32))
    (7, 12)
    """
    partition, first, *_ = name.rpartition("/")[2].split("-")
    return int(partition.removeprefix("p")), int(first)
