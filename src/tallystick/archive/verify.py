"""Verification of the archive: every hash, every link, no gap from the first offset on."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tallystick.archive.chain import Archive, Tail, check_link
from tallystick.archive.model import CORRECTIONS_FOLDER, EVENTS_FOLDER, Manifest, offset_of
from tallystick.errors import InvariantBroken, NotFound
from tallystick.plumbing.objects import digest_of


class PartitionFindings(msgspec.Struct):
    """One partition: what it holds of [offset_start, offset_end)."""

    partition: int
    offset_start: int
    offset_end: int
    manifests: int = 0
    objects: int = 0
    rows: int = 0
    byte_count: int = 0


class Findings(msgspec.Struct):
    """What a verification found; `violations` is empty when the archive is whole."""

    partitions: list[PartitionFindings]
    violations: list[str]
    garbage: list[str]
    """Data objects that no manifest names: left by a crash, ignored by readers."""


def verify_archive(archive: Archive, *, has_content: bool = True) -> Findings:
    """Check every chain, and with `has_content` every object byte by byte."""
    violations: list[str] = []
    partitions: list[PartitionFindings] = []
    named: set[str] = set()
    for partition in archive.partitions():
        found, tail = _begin(archive, partition)
        partitions.append(found)
        names = [
            name for name in archive.manifest_names(partition) if offset_of(name) >= tail.offset
        ]
        for name in names:
            try:
                link = archive.load(name)
            except InvariantBroken as error:
                violations.append(error.message)
                break
            if trouble := check_link(link, tail, partition):
                violations.append(trouble)
                break
            tail = link.tail
            _count(found, link.manifest)
            named.update(one.name for one in link.manifest.objects)
            violations += _check_ranges(link.manifest)
            if has_content:
                violations += _check_objects(archive, link.manifest)
    stored = archive.objects.list(EVENTS_FOLDER) + archive.objects.list(CORRECTIONS_FOLDER)
    if not has_content:
        violations += [f"{name} is missing" for name in sorted(named - set(stored))]
    return Findings(partitions, violations, sorted(set(stored) - named))


def _begin(archive: Archive, partition: int) -> tuple[PartitionFindings, Tail]:
    begin = archive.begin(partition)
    return PartitionFindings(partition, begin.offset, begin.offset), begin


def _count(found: PartitionFindings, manifest: Manifest) -> None:
    found.manifests += 1
    found.objects += len(manifest.objects)
    found.rows += manifest.rows
    found.byte_count += sum(one.byte_count for one in manifest.objects)
    found.offset_end = manifest.offset_end


def _check_ranges(manifest: Manifest) -> Iterator[str]:
    for one in manifest.objects:
        if not manifest.offset_start <= one.offset_first <= one.offset_last < manifest.offset_end:
            yield f"{one.name} is outside of its manifest's range"
    if sum(one.rows for one in manifest.objects) != manifest.rows:
        yield f"the manifest from offset {manifest.offset_start} miscounts its rows"


def _check_objects(archive: Archive, manifest: Manifest) -> Iterator[str]:
    for one in manifest.objects:
        try:
            content = archive.objects.get(one.name)
        except NotFound:
            yield f"{one.name} is missing"
            continue
        if digest_of(content) != one.sha256:
            yield f"{one.name} was changed since it was written"
            continue
        rows = pq.ParquetFile(pa.BufferReader(content)).metadata.num_rows
        if rows != one.rows:
            yield f"{one.name} has {rows} rows, its manifest says {one.rows}"
