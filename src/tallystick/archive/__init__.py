"""The archive: every delivery of the usage log, kept in Parquet objects that prove themselves.

Owns the layout of the archive: data objects, manifests and their chain, expiry.
Never changes an object, prices an event or asks ClickHouse.
Keeps deliveries as they were logged (redacted), with verdict and coordinates, for the days set.
Time: objects lie by the hour of receipt; only expiry takes `now`.
"""

from tallystick.archive.chain import Archive, Link, Tail
from tallystick.archive.columns import CORRECTIONS_SCHEMA, EVENTS_SCHEMA, columns_of, table_of
from tallystick.archive.expiry import collect_garbage, expire
from tallystick.archive.model import ArchivedObject, Expired, Manifest
from tallystick.archive.reading import ArchiveSource, Slice, identities_in, require_same_log
from tallystick.archive.verify import Findings, verify_archive
from tallystick.archive.writing import PartitionBuffer

__all__ = [
    "CORRECTIONS_SCHEMA",
    "EVENTS_SCHEMA",
    "Archive",
    "ArchiveSource",
    "ArchivedObject",
    "Expired",
    "Findings",
    "Link",
    "Manifest",
    "PartitionBuffer",
    "Slice",
    "Tail",
    "collect_garbage",
    "columns_of",
    "expire",
    "identities_in",
    "require_same_log",
    "table_of",
    "verify_archive",
]
