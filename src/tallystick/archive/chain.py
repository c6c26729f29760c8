"""The chain of manifests of each partition: where it begins, goes on and ends.

Each manifest carries the hash of the one before, so nothing in the middle can be changed,
dropped or slipped in without a trace. A chain begins at offset 0, or where the last note of
expiry says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from tallystick.archive.model import (
    EXPIRED_FOLDER,
    MANIFEST_FOLDER,
    Expired,
    Manifest,
    manifest_name,
    offset_of,
    partition_name,
    partition_of,
)
from tallystick.errors import InvariantBroken
from tallystick.plumbing.objects import Objects, digest_of

_encoder = msgspec.json.Encoder()


class Tail(NamedTuple):
    """Where a chain goes on: the next offset, and the hash of the last manifest."""

    offset: int
    digest: str


class Link(NamedTuple):
    """A manifest as found: its name and the hash of its bytes."""

    name: str
    manifest: Manifest
    digest: str

    @property
    def tail(self) -> Tail:
        """Where the chain goes on after this manifest."""
        return Tail(self.manifest.offset_end, self.digest)


class Archive:
    """Manifests and notes below one URL; data objects are read by their manifest."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    def partitions(self) -> list[int]:
        """Partitions that the archive holds or has held."""
        names = self.objects.list(MANIFEST_FOLDER) + self.objects.list(EXPIRED_FOLDER)
        return sorted({partition_of(name) for name in names})

    def begin(self, partition: int) -> Tail:
        """Where a partition's chain begins."""
        notes = self.objects.list(f"{EXPIRED_FOLDER}{partition_name(partition)}/")
        if not notes:
            return Tail(0, "")
        note = msgspec.json.decode(self.objects.get(notes[-1]), type=Expired)
        return Tail(note.offset_end, note.previous)

    def tail(self, partition: int) -> Tail:
        """Where a partition's chain ends, and so where its archiver goes on."""
        begin = self.begin(partition)
        names = self.manifest_names(partition)
        if not names or offset_of(names[-1]) < begin.offset:
            return begin
        return self.load(names[-1]).tail

    def append(self, manifest: Manifest) -> Tail:
        """Claim a manifest's range; Conflict when another archiver has claimed it."""
        if manifest.offset_end <= manifest.offset_start:
            raise InvariantBroken(f"a manifest from offset {manifest.offset_start} claims nothing")
        content = _encoder.encode(manifest)
        name = manifest_name(manifest.partition, manifest.offset_start)
        self.objects.put_new(name, content)
        return Tail(manifest.offset_end, digest_of(content))

    def manifest_names(self, partition: int) -> list[str]:
        """Names of a partition's manifests, in order."""
        return self.objects.list(f"{MANIFEST_FOLDER}{partition_name(partition)}/")

    def load(self, name: str) -> Link:
        """Read one manifest; InvariantBroken when it is none."""
        content = self.objects.get(name)
        try:
            manifest = msgspec.json.decode(content, type=Manifest)
        except msgspec.DecodeError as error:
            raise InvariantBroken(f"the archive's {name} is no manifest: {error}") from error
        return Link(name, manifest, digest_of(content))

    def links(self, partition: int, offset: int = 0) -> Iterator[Link]:
        """Manifests in order, from the one that holds `offset` on.

        The chain's hashes are checked on the way; InvariantBroken names the first bad link.
        """
        expected = self.begin(partition)
        names = [
            name for name in self.manifest_names(partition) if offset_of(name) >= expected.offset
        ]
        starts = [offset_of(name) for name in names]
        skipped = max(sum(start <= offset for start in starts) - 1, 0)
        for index, name in enumerate(names[skipped:]):
            link = self.load(name)
            is_joined = index == 0 and skipped > 0
            if trouble := check_link(link, None if is_joined else expected, partition):
                raise InvariantBroken(f"the archive's chain is broken: {trouble}")
            expected = link.tail
            yield link


def check_link(link: Link, expected: Tail | None, partition: int) -> str | None:
    """Say what is wrong with a manifest where `expected` goes on; None when it fits."""
    manifest = link.manifest
    if link.name != manifest_name(manifest.partition, manifest.offset_start):
        return f"{link.name} claims another range than its name says"
    if manifest.partition != partition or manifest.offset_end <= manifest.offset_start:
        return f"{link.name} has an impossible range"
    if expected is None:
        return None
    if manifest.offset_start != expected.offset:
        return f"a manifest from offset {expected.offset} is missing before {link.name}"
    if manifest.previous != expected.digest:
        return f"{link.name} does not follow from the manifest before it: one of them was changed"
    return None
