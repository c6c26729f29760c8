"""The archiver against real stores: exact, in order, fenced, verifiable, and it forgets in time."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.archive import Archive, collect_garbage, expire, verify_archive
from tallystick.archive.columns import EVENTS_SCHEMA, completed
from tallystick.archive.model import hour_of, manifest_name
from tallystick.clock import DAY, FixedClock
from tallystick.errors import InvariantBroken
from tallystick.events.model import EVENT_FIELDS
from tallystick.plumbing.log import CORRECTIONS
from tallystick.plumbing.objects import open_objects
from tallystick.workers.loop import Progress
from tests.archive.scene import (
    append,
    archive_all,
    make_archiver,
    make_rows,
    read_archive,
    read_log,
    require_exact,
)
from tests.world import World


@pytest.fixture(scope="module")
def log_world(world: World) -> World:
    """A log of 400 deliveries over three hours, in batches of many sizes, of all verdicts."""
    rows, rng = make_rows(400, hours=3), random.Random(1)
    while rows:
        count = min(rng.randint(1, 40), len(rows))
        append(world.log, rows[:count], bytes(rng.choice((0, 0, 0, 1, 2)) for _ in range(count)))
        rows = rows[count:]
    return world


@pytest.fixture
def fresh(log_world: World) -> World:
    log_world.positions.forget("archiver")
    return log_world


def test_the_archive_holds_what_the_log_holds(fresh: World, archive: Archive) -> None:
    archiver = make_archiver(fresh, archive, flush_rows=100)
    archive_all(archiver)
    require_exact(fresh, archive)
    assert fresh.positions.offset("archiver", 0) == fresh.log.head()
    (found,) = [one for one in verify_archive(archive).partitions if one.partition == 0]
    assert (found.offset_start, found.offset_end) == (0, fresh.log.head())
    assert found.rows == found.offset_end  # an offset for each delivery


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 150), st.integers(1, 90), st.integers(0, 2**31), st.integers(0, 400))
def test_any_cut_of_the_archive_reads_like_the_log(
    log_world: World, tmp_path: Path, flush_rows: int, events_max: int, seed: int, start: int
) -> None:
    log_world.positions.forget("archiver")
    archive = Archive(open_objects(str(tmp_path / f"{flush_rows}-{events_max}-{seed}-{start}")))
    archiver, rng = make_archiver(log_world, archive, flush_rows=flush_rows), random.Random(seed)
    while archiver.step():
        if rng.random() < 0.3:
            archiver.recover()  # what was gathered and not flushed is read again
    archiver.flush()
    log_world.positions.commit("reader", {0: start}, 0)
    wanted = [one for one in read_log(log_world) if one[0] == CORRECTIONS or one[1] >= start]
    assert read_archive(log_world, archive, events_max, "reader") == wanted


def test_objects_lie_by_the_hour_of_receipt_and_read_alone(fresh: World, tmp_path: Path) -> None:
    archive = Archive(open_objects(str(tmp_path)))
    archive_all(make_archiver(fresh, archive))
    names = archive.objects.list("events/")
    assert len({name.split("/")[1] for name in names}) == 3
    for name in names:
        table = pq.read_table(io.BytesIO(archive.objects.get(name)))
        assert table.schema.names == [*EVENT_FIELDS, "log_partition", "log_offset", "verdict"]
        hours = {hour_of(one.as_py()) for one in table["received_at"].cast("int64")}
        assert {f"received={hour}" for hour in hours} == {name.split("/")[1]}
        offsets = table["log_offset"].to_pylist()
        assert offsets == sorted(offsets)


def test_of_two_archivers_one_claims_each_range(fresh: World, archive: Archive) -> None:
    one = make_archiver(fresh, archive, flush_rows=10**9)
    other = make_archiver(fresh, archive, flush_rows=10**9)
    one.step()
    other._source._logs = other._source._logs[:1]  # type: ignore[attr-defined]
    chunks = other._source.read(70)
    assert all(other._take_up(chunk) for chunk in chunks)
    for chunk in chunks:
        other._gather(chunk)
    other.flush()  # claims less than `one` has gathered
    one.flush()
    assert archive.manifest_names(0) == [manifest_name(0, 0)]
    archive_all(one)
    archive_all(other)
    require_exact(fresh, archive)


def test_what_another_archived_between_reading_and_taking_up_is_read_again(
    fresh: World, archive: Archive
) -> None:
    slow = make_archiver(fresh, archive, flush_rows=10**9)
    slow._begin()
    read = slow._source.read(1000)
    archive_all(make_archiver(fresh, archive))  # position and chain agree again, further on
    assert not any(slow._take_up(chunk) for chunk in read)
    slow.recover()
    archive_all(slow)
    require_exact(fresh, archive)


def test_a_position_ahead_of_the_archive_is_set_back(fresh: World, archive: Archive) -> None:
    """The archive was lost, the position was not: the log is archived again."""
    fresh.positions.commit("archiver", {0: fresh.log.head()}, 0)
    archive_all(make_archiver(fresh, archive))
    require_exact(fresh, archive)


def test_another_log_is_not_mixed_in(fresh: World, archive: Archive) -> None:
    archive_all(make_archiver(fresh, archive))
    fresh.positions.forget("archiver")
    archiver = make_archiver(fresh, archive)
    (chunk, *_) = archiver._source.read(1000)
    other = [["another"], *chunk.columns[1:]]
    with pytest.raises(InvariantBroken, match="another log"):
        archiver._take_up(chunk._replace(columns=other))
    assert not archiver._take_up(chunk)  # the position was behind: read again from the end


@pytest.mark.parametrize("what", ["data", "manifest", "gone"])
def test_a_changed_byte_is_found(fresh: World, tmp_path: Path, what: str) -> None:
    archive = Archive(open_objects(str(tmp_path)))
    archive_all(make_archiver(fresh, archive, flush_rows=100))
    names = archive.manifest_names(0) if what == "manifest" else archive.objects.list("events/")
    path = tmp_path / names[1]
    content = path.read_bytes()
    if what == "gone":
        path.unlink()
    elif what == "data":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        manifest = msgspec.json.decode(content)
        manifest["objects"][0]["rows"] += 1
        manifest["rows"] += 1
        path.write_bytes(msgspec.json.encode(manifest))
    findings = verify_archive(archive)
    expected = {"data": "was changed", "manifest": "does not follow", "gone": "is missing"}[what]
    assert any(expected in one for one in findings.violations)
    if what == "manifest":
        return
    with pytest.raises(Exception, match=r"was changed|no object"):
        read_archive(fresh, archive)


def test_a_missing_manifest_is_a_gap(fresh: World, tmp_path: Path) -> None:
    archive = Archive(open_objects(str(tmp_path)))
    archive_all(make_archiver(fresh, archive, flush_rows=100))
    (tmp_path / archive.manifest_names(0)[1]).unlink()
    assert any("is missing before" in one for one in verify_archive(archive).violations)


def test_what_no_manifest_names_is_ignored_and_cleaned(fresh: World, archive: Archive) -> None:
    archiver = make_archiver(fresh, archive, flush_rows=10**9)
    archiver.step()
    sealed, _ = archiver._buffers[0].seal("", 0)
    for one in sealed:  # and then the power went, before the manifest
        archive.objects.put_new(one.entry.name, one.content)
    findings = verify_archive(archive)
    assert findings.violations == []
    assert set(findings.garbage) == {one.entry.name for one in sealed}
    assert collect_garbage(archive) == []  # it might belong to a flush under way
    archive_all(make_archiver(fresh, archive, flush_rows=100))
    require_exact(fresh, archive)
    assert set(collect_garbage(archive)) == {one.entry.name for one in sealed}
    require_exact(fresh, archive)


def test_old_hours_expire_once_they_have_landed(fresh: World, archive: Archive) -> None:
    archive_all(make_archiver(fresh, archive, flush_rows=50))
    received = [one[2][EVENT_FIELDS.index("received_at")] for one in read_log(fresh)]
    now = max(received) + 90 * DAY  # the first hours are over 90 days old, the last is not
    before = read_archive(fresh, archive)
    assert expire(archive, days=90, landed={0: 0}, now=now) == 0  # nothing has landed
    assert read_archive(fresh, archive) == before
    deleted = expire(archive, days=90, landed={0: fresh.log.head()}, now=now)
    assert 0 < deleted < len(before)
    assert read_archive(fresh, archive) == before[deleted:]
    findings = verify_archive(archive)
    assert findings.violations == findings.garbage == []
    assert findings.partitions[0].offset_start == deleted
    assert archive.manifest_names(0)[0] == manifest_name(0, deleted)
    assert expire(archive, days=90, landed={0: fresh.log.head()}, now=now) == 0
    append(fresh.log, make_rows(5, seed=deleted))
    archive_all(make_archiver(fresh, archive))  # the chain goes on
    assert verify_archive(archive).violations == []


def test_an_expiry_that_was_interrupted_is_finished(fresh: World, tmp_path: Path) -> None:
    archive = Archive(open_objects(str(tmp_path)))
    archive_all(make_archiver(fresh, archive, flush_rows=100))
    first = archive.load(archive.manifest_names(0)[0])
    kept = (
        archive.objects.get(first.name),
        {one.name: archive.objects.get(one.name) for one in first.manifest.objects},
    )
    far = 2**52
    expire(archive, days=1, landed={0: first.manifest.offset_end}, now=far)
    archive.objects.put_new(first.name, kept[0])  # as if it had not been deleted yet
    for name, content in kept[1].items():
        archive.objects.put_new(name, content)
    assert verify_archive(archive).violations == []
    assert expire(archive, days=1, landed={0: 0}, now=far) == 0
    assert first.name not in archive.manifest_names(0)
    assert not set(kept[1]) & set(archive.objects.list("events/"))


def test_small_flushes_wait_for_their_time(fresh: World, tmp_path: Path) -> None:
    archive = Archive(open_objects(str(tmp_path)))
    clock = FixedClock(fresh.clock.now())
    archiver = make_archiver(fresh, archive, flush_seconds=60)
    archiver._clock = clock
    while archiver.step():
        pass
    assert fresh.positions.offset("archiver", 0) == fresh.log.head()  # the first comes at once
    append(fresh.log, make_rows(3, seed=clock.micros))
    while archiver.step():
        pass
    assert fresh.positions.offset("archiver", 0) == fresh.log.head() - 3
    clock.micros += 61_000_000
    assert archiver.step()
    assert fresh.positions.offset("archiver", 0) == fresh.log.head()
    append(fresh.log, make_rows(3, seed=clock.micros))
    clock.micros -= DAY  # the clock was set right: nothing waits for a day
    while archiver.step():
        pass
    assert fresh.positions.offset("archiver", 0) == fresh.log.head()


def test_a_step_that_reads_as_much_as_it_may_is_followed_at_once(
    fresh: World, archive: Archive
) -> None:
    archiver = make_archiver(fresh, archive, flush_rows=100)
    steps = list(iter(archiver.step, Progress.NOTHING))
    assert len(steps) > 3 and set(steps[:3]) == {Progress.FULL}  # else it falls behind for good


def test_an_older_object_reads_with_defaults() -> None:
    older = EVENTS_SCHEMA.empty_table().drop_columns(["reject_code", "usage_quality"])
    assert completed(older, 0).schema.names == EVENTS_SCHEMA.names
    rows: list[dict[str, Any]] = [{"event_id": "a", "log_offset": 1}]
    kept = EVENTS_SCHEMA.empty_table().select(["event_id", "log_offset"])
    table = completed(type(older).from_pylist(rows, schema=kept.schema), 0)
    found = table.to_pylist()[0]
    assert (found["usage_quality"], found["attempt"], found["latency_ms"]) == ("exact", 1, None)
