"""Expiry: what is older than the days set goes, from the beginning of each chain only.

First a create-only note says from which offset the chain goes on and what it must follow from;
then objects and manifests before it are deleted. A crash in between leaves what a later run
deletes. Nothing goes that has not landed in ClickHouse: the caller passes how far the sink is.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.archive.chain import Archive, Link
from tallystick.archive.model import (
    CORRECTIONS_FOLDER,
    EVENTS_FOLDER,
    FORMAT,
    Expired,
    expired_name,
    hour_of,
    offset_of,
    place_of,
)
from tallystick.clock import DAY, HOUR, format_time

_encoder = msgspec.json.Encoder()


def expire(archive: Archive, *, days: int, landed: Mapping[int, int], now: int) -> int:
    """Delete what was received more than `days` ago and has landed; return the rows deleted.

    `landed` maps a partition to the offset below which everything is in ClickHouse.
    """
    oldest_hour = hour_of((now - days * DAY) // HOUR * HOUR)
    deleted = 0
    for partition in archive.partitions():
        old = _leading(archive, partition, oldest_hour, landed.get(partition, 0))
        if old:
            last, rows = old[-1], sum(link.manifest.rows for link in old)
            _note(archive, last, rows, now)
            deleted += rows
        _delete_before(archive, partition)
    return deleted


def _leading(archive: Archive, partition: int, oldest_hour: str, landed: int) -> list[Link]:
    old: list[Link] = []
    for link in archive.links(partition):
        hours = [one.hour for one in link.manifest.objects]
        if link.manifest.offset_end > landed or any(hour >= oldest_hour for hour in hours):
            break
        old.append(link)
    return old


def _note(archive: Archive, last: Link, rows: int, now: int) -> None:
    note = Expired(
        format=FORMAT,
        partition=last.manifest.partition,
        offset_end=last.manifest.offset_end,
        previous=last.digest,
        rows=rows,
        hour_last=max((one.hour for one in last.manifest.objects), default=""),
        expired_at=format_time(now),
    )
    name = expired_name(note.partition, note.offset_end)
    archive.objects.put_new(name, _encoder.encode(note))


def _delete_before(archive: Archive, partition: int) -> None:
    """Delete what lies before the last note: data first, so that no data is forgotten."""
    begin = archive.begin(partition)
    names = [name for name in archive.manifest_names(partition) if offset_of(name) < begin.offset]
    for name in names:
        archive.objects.delete([one.name for one in archive.load(name).manifest.objects])
        archive.objects.delete([name])


def collect_garbage(archive: Archive) -> list[str]:
    """Delete data objects that no manifest names or can ever name; return their names.

    Below the end of its chain every offset is claimed, so what is not named there never will
    be. An object beyond it may belong to a flush under way and stays.
    """
    stored = archive.objects.list(EVENTS_FOLDER) + archive.objects.list(CORRECTIONS_FOLDER)
    named: set[str] = set()
    tails: dict[int, int] = {}
    for partition in archive.partitions():
        for link in archive.links(partition):
            named.update(one.name for one in link.manifest.objects)
            tails[partition] = link.manifest.offset_end
    places = {name: place_of(name) for name in stored if name not in named}
    garbage = [
        name for name, (partition, first) in places.items() if first < tails.get(partition, 0)
    ]
    archive.objects.delete(garbage)
    return garbage
