"""The spool on real files: torn at any byte, full, adopted, killed in mid-write, forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.sdk.errors import SpoolFull, Unreachable
from tallystick.sdk.spool import FileSpool, MemorySpool, Spool, adopt_leftovers
from tallystick.sdk.spool.frames import frame, scan
from tallystick.sdk.spool.records import Post, encode_record, first_batch
from tallystick.sdk.spool.sender import Backoff, Sender
from tallystick.sdk.transport import Answer

_PAYLOADS = st.lists(st.binary(min_size=1, max_size=40), max_size=12)


@given(payloads=_PAYLOADS, data=st.data())
def test_a_segment_cut_anywhere_keeps_its_whole_frames(
    payloads: list[bytes], data: st.DataObject
) -> None:
    content = b"".join(frame(one) for one in payloads)
    cut = data.draw(st.integers(0, len(content)))
    whole, size = 0, 0
    for one in payloads:
        size += len(frame(one))
        whole += size <= cut
    found = scan(content[:cut])
    assert found.payloads == payloads[:whole]
    assert found.rest in ("none", "torn")
    zeros = scan(content[:cut] + bytes(20))  # what a power loss may leave
    assert zeros.payloads[:whole] == payloads[:whole]


@given(payloads=_PAYLOADS.filter(bool), data=st.data())
def test_a_changed_byte_never_passes_for_a_record(
    payloads: list[bytes], data: st.DataObject
) -> None:
    content = bytearray(b"".join(frame(one) for one in payloads))
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    found = scan(bytes(content))
    assert found.payloads == payloads[: len(found.payloads)]
    assert len(found.payloads) < len(payloads)


@given(
    steps=st.lists(
        st.one_of(st.binary(min_size=1, max_size=60), st.integers(1, 4)), min_size=1, max_size=40
    ),
    cut=st.integers(0, 30),
)
@settings(max_examples=40, deadline=None)
def test_what_is_appended_is_read_once_in_order_also_by_the_next(
    steps: list[bytes | int], cut: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        spool = FileSpool(Path(name), 10**6, fsync="never", segment_bytes=100)
        written: list[bytes] = []
        seen: list[bytes] = []
        for step in steps:
            if isinstance(step, bytes):
                spool.append(step)
                written.append(step)
            else:
                found = spool.read(step)
                spool.advance(len(found))
                seen += found
        assert seen == written[: len(seen)]
        assert spool.pending_records == len(written) - len(seen)
        assert not adopt_leftovers(Path(name)), "the living are left alone"
        spool.abandon()  # as a death does
        last = max(spool.folder.glob("*.seg"))
        size = last.stat().st_size
        os.truncate(last, max(size - cut, 0))
        left = []
        for leftover in adopt_leftovers(Path(name)):
            while found := leftover.read(3):
                left += found
                leftover.advance(len(found))
            leftover.close()
        # a segment that was sent in part is sent again from its start: harmless by ids
        expected = written[len(seen) :]
        start = next(
            index for index in range(len(written) + 1) if written[index:][: len(left)] == left
        )
        assert start <= len(seen)
        if cut == 0:
            assert left[len(left) - len(expected) :] == expected
        assert not list(Path(name).iterdir()), "nothing is left behind"


@pytest.fixture(params=["memory", "file"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Spool]:
    made: Spool = MemorySpool(100) if request.param == "memory" else FileSpool(tmp_path, 100)
    yield made
    made.close()


def test_a_full_spool_refuses_but_not_what_is_owed(small: Spool) -> None:
    small.append(b"x" * 60)
    with pytest.raises(SpoolFull):
        small.append(b"y" * 60)
    small.append(b"z" * 60, is_owed=True)
    assert [one[:1] for one in small.read(10)] == [b"x", b"z"]
    small.advance(2)
    assert small.pending_bytes == 0
    small.append(b"y" * 60)


def test_a_segment_that_cannot_be_begun_harms_no_file_of_the_application(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path / "spool", 10**6, segment_bytes=10)
    spool.append(b"first")
    (spool.folder / "000002.seg").mkdir()  # as a full disk does: the next cannot be opened
    with pytest.raises(SpoolFull):
        spool.append(b"second")
    with (tmp_path / "customers.db").open("w+b") as theirs:
        theirs.write(b"precious")
        theirs.flush()
        with pytest.raises(SpoolFull):
            spool.append(b"third")
        assert os.fstat(theirs.fileno()).st_size == len(b"precious")
    assert (spool.pending_records, spool.read(10)) == (1, [b"first"])
    (spool.folder / "000002.seg").rmdir()
    spool.append(b"fourth")
    assert spool.read(10) == [b"first"]
    spool.advance(1)
    assert spool.read(10) == [b"fourth"]
    spool.advance(1)
    spool.close()
    assert not spool.folder.exists()


class Ear:
    """The server's side in memory: hears what is posted, or is away."""

    def __init__(self) -> None:
        self.is_away = False
        self.status = 200
        self.heard: dict[str, int] = {}
        self.posts = 0

    def post(self, path: str, body: bytes) -> Answer:
        self.posts += 1
        if self.is_away:
            raise Unreachable("away", may_have_arrived=False)
        if self.status != 200:
            return Answer(self.status, {"code": "scripted"})
        events = msgspec.json.decode(body)
        refused = []
        for index, event in enumerate(events if isinstance(events, list) else [events]):
            name = event["event_id"]
            if name.startswith("bad"):
                refused.append({"index": index, "code": "bad"})
            self.heard[name] = self.heard.get(name, 0) + 1
        return Answer(200, {"accepted": len(events), "rejected": refused})


def _event(name: str) -> bytes:
    return encode_record("/v1/events", {"event_id": name})


def test_an_outage_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    ear, spool = Ear(), FileSpool(tmp_path, 10**6)
    ear.is_away = True
    sender = Sender(spool, ear, folder=tmp_path, backoff=Backoff(0.01, 0.02, lambda: 1.0))
    for index in range(700):
        spool.append(_event(f"e{index}"))
    sender.notice()
    assert not sender.flush(0.2)
    ear.is_away = False
    assert sender.flush(5)
    sender.close(1)
    spool.close()
    assert len(ear.heard) == 700 and set(ear.heard.values()) == {1}
    assert sender.counts.retries > 0 and sender.counts.delivered == 700
    assert list(tmp_path.iterdir()) == []


def test_a_flush_also_delivers_what_the_dead_left(tmp_path: Path) -> None:
    """Also at once: a script that ends soon would leave it to the next for ever."""
    dead = FileSpool(tmp_path, 10**6)
    dead.append(_event("left"))
    dead.abandon()
    ear, spool = Ear(), FileSpool(tmp_path, 10**6)
    sender = Sender(spool, ear, folder=tmp_path)
    assert sender.flush(10)
    assert ear.heard == {"left": 1}
    sender.close(1)
    spool.close()


def test_what_is_refused_is_kept_aside_and_counted(tmp_path: Path) -> None:
    ear, spool = Ear(), FileSpool(tmp_path, 10**6)
    sender = Sender(spool, ear, folder=tmp_path)
    for name in ("a", "bad-1", "b"):
        spool.append(_event(name))
    assert sender.flush(5)
    ear.status = 422
    spool.append(_event("c"))
    assert sender.flush(5)
    sender.close(1)
    spool.close()
    assert (sender.counts.delivered, sender.counts.refused) == (2, 2)
    lines = (tmp_path / "refused.ndjson").read_bytes().splitlines()
    kept = [msgspec.json.decode(line) for line in lines]
    assert [(one["code"], one["body"]["event_id"]) for one in kept] == [
        ("bad", "bad-1"),
        ("scripted", "c"),
    ]


def test_a_full_disk_for_what_is_refused_does_not_stop_the_good(tmp_path: Path) -> None:
    (tmp_path / "refused.ndjson").symlink_to("/dev/full")
    ear, spool = Ear(), FileSpool(tmp_path, 10**6)
    sender = Sender(spool, ear, folder=tmp_path)
    for name in ("bad-1", "a", "b"):
        spool.append(_event(name))
    assert sender.flush(5)
    assert (sender.counts.delivered, sender.counts.refused) == (2, 1)
    sender.close(1)
    spool.close()


def test_a_spool_that_cannot_be_read_is_tried_again_until_it_can(tmp_path: Path) -> None:
    ear, spool = Ear(), FileSpool(tmp_path, 10**6)
    sender = Sender(spool, ear, folder=tmp_path, backoff=Backoff(0.01, 0.02, lambda: 1.0))
    spool.append(_event("a"))
    segment = spool.folder / "000001.seg"
    aside = segment.rename(tmp_path / "aside")
    assert not sender.flush(0.2)
    aside.rename(segment)
    assert sender.flush(5), "the thread lives"
    sender.close(1)
    spool.close()
    assert ear.heard == {"a": 1}


def test_a_late_settlement_waits_for_a_spool_that_cannot_be_written(tmp_path: Path) -> None:
    ear, spool = Ear(), FileSpool(tmp_path, 10**6, segment_bytes=10)
    ear.is_away = True
    sender = Sender(spool, ear, folder=tmp_path, backoff=Backoff(0.01, 0.02, lambda: 1.0))
    spool.append(_event("a"))
    (spool.folder / "000002.seg").mkdir()
    sender.late.put(_event("late"))
    assert not sender.flush(0.2)
    (spool.folder / "000002.seg").rmdir()
    ear.is_away = False
    assert sender.flush(5)
    sender.close(1)
    spool.close()
    assert ear.heard == {"a": 1, "late": 1}


def test_a_leftover_whose_disk_fails_waits_and_the_others_are_delivered(tmp_path: Path) -> None:
    damaged, whole = [FileSpool(tmp_path, 10**6) for _ in range(2)]
    for name, left in (("damaged", damaged), ("whole", whole)):
        left.append(_event(name))
        left.abandon()
    with (damaged.folder / "000001.seg").open("ab") as segment:
        segment.write(b"no frame at all")
    (damaged.folder / "000001.damaged").symlink_to("/dev/full")
    (tmp_path / "foreign" / "lock").mkdir(parents=True)  # cannot be opened as a lock
    ear, spool = Ear(), FileSpool(tmp_path, 10**6)
    sender = Sender(spool, ear, folder=tmp_path)
    spool.append(_event("own"))
    assert sender.flush(5)
    sender.close(1)
    assert ear.heard == {"whole": 1, "own": 1}
    (damaged.folder / "000001.damaged").unlink()
    heir = Sender(spool, ear, folder=tmp_path)
    heir.start()
    deadline = time.monotonic() + 10
    while "damaged" not in ear.heard and time.monotonic() < deadline:
        time.sleep(0.02)
    heir.close(1)
    spool.close()
    assert ear.heard == {"whole": 1, "own": 1, "damaged": 1}
    assert (damaged.folder / "000001.damaged").read_bytes() == b"no frame at all"


def test_a_wrong_key_keeps_everything(tmp_path: Path) -> None:
    ear, spool = Ear(), FileSpool(tmp_path, 10**6)
    ear.status = 401
    sender = Sender(spool, ear, folder=tmp_path, backoff=Backoff(0.01, 0.02))
    spool.append(_event("a"))
    assert not sender.flush(0.2)
    ear.status = 200
    assert sender.flush(5)
    sender.close(1)
    spool.close()
    assert sender.counts.refused == 0


def test_batches_hold_events_of_one_kind_and_size() -> None:
    events = [Post("/v1/events", b"x" * 40) for _ in range(5)]
    owed = Post("/v1/authorizations/1/settle", b"{}")
    assert len(first_batch(events, 100)) == 2
    assert first_batch([*events[:1], owed], 100) == events[:1]
    assert first_batch([owed, *events], 100) == [owed]
    assert first_batch([Post("/v1/events", b"x" * 400)], 100) == [Post("/v1/events", b"x" * 400)]


def test_backoff_doubles_up_to_its_ceiling() -> None:
    backoff = Backoff(0.1, 1.0, lambda: 1.0)
    assert [round(backoff.next_wait(), 1) for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert backoff.next_wait(at_least_seconds=7) == 7
    backoff.reset()
    assert backoff.next_wait() == 0.1


_WRITER = """
import sys
from pathlib import Path
from tallystick.sdk.spool import FileSpool
from tallystick.sdk.spool.records import encode_record
spool = FileSpool(Path(sys.argv[1]), 10**9, segment_bytes=4096)
index = 0
while True:
    spool.append(encode_record("/v1/events", {"event_id": f"{sys.argv[2]}-{index}"}))
    print(index, flush=True)
    index += 1
"""


def test_processes_killed_in_mid_write_lose_nothing_that_they_were_told_is_taken(
    tmp_path: Path,
) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(number)], stdout=subprocess.PIPE
        )
        for number in range(2)
    ]
    acknowledged = []
    for writer in writers:
        assert writer.stdout is not None
        for _ in range(400):
            line = writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0].split(b"\n")
        acknowledged.append(max(int(one) for one in [line, *rest[:-1]] if one.strip()))
    ear, spool = Ear(), FileSpool(tmp_path, 10**6)
    senders = [Sender(spool, ear, folder=tmp_path), Sender(MemorySpool(10), ear, folder=tmp_path)]
    threads = [threading.Thread(target=sender.flush, args=(20,)) for sender in senders]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) > 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    for sender in senders:
        sender.close(1)
    spool.close()
    for number, last in enumerate(acknowledged):
        assert all(ear.heard.get(f"{number}-{index}") == 1 for index in range(last + 1))
    assert sum(sender.counts.adopted for sender in senders) == 2
    assert sum(sender.counts.damaged_bytes for sender in senders) == 0


def test_a_closed_spool_touches_no_file_that_got_its_descriptor(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path / "spool", 10**6)
    spool.append(b"a record")
    descriptor = spool._segment
    spool.close()
    taken: list[FileIO] = []  # files of the application, of which one has the segment's number now
    while descriptor not in [one.fileno() for one in taken]:
        taken.append((tmp_path / f"own{len(taken)}").open("w+b", buffering=0))
    own = next(one for one in taken if one.fileno() == descriptor)
    own.write(b"the application's own")
    with pytest.raises(SpoolFull):
        spool.append(b"a late record", is_owed=True)
    spool.advance(len(spool.read(10)))  # a thread that was sending when it was closed
    spool.advance(1)
    spool.sync()
    assert Path(own.name).read_bytes() == b"the application's own"
    for one in taken:
        one.close()


def test_a_child_that_can_have_no_spool_writes_into_no_other_file(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _FORKED_WITHOUT_A_FOLDER, str(tmp_path)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr.decode()
    assert (tmp_path / "own").read_bytes() == b"", made.stderr.decode()


_FORKED_WITHOUT_A_FOLDER = """
import os, shutil, sys
from pathlib import Path
from tallystick.sdk import Tallystick
from tallystick.sdk.errors import SpoolFull

folder = Path(sys.argv[1])
client = Tallystick("http://127.0.0.1:9", "key", spool=folder / "spool")
segment = client._spool._segment
shutil.rmtree(folder / "spool")
(folder / "spool").write_text("a file where the folder was")
child = os.fork()
if child == 0:
    own = os.open(folder / "own", os.O_CREAT | os.O_RDWR)
    os.dup2(own, segment)
    try:
        client.owe("/v1/events", {"event_id": "e"})
    except SpoolFull:
        os._exit(0)
    os._exit(1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class _Stranger(Ear):
    """Answers as nobody of ours does, until it is told to stop."""

    is_strange = True

    def post(self, path: str, body: bytes) -> Answer:
        answer = super().post(path, body)
        return Answer(200, {"rejected": 7, "duplicates": "none"}) if self.is_strange else answer


def test_a_strange_answer_does_not_end_the_thread(tmp_path: Path) -> None:
    """Such as that of a proxy: nobody starts the thread again."""
    ear, spool = _Stranger(), FileSpool(tmp_path, 10**6)
    sender = Sender(spool, ear, folder=tmp_path, backoff=Backoff(0.01, 0.02, lambda: 1.0))
    spool.append(_event("a"))
    assert not sender.flush(0.2)
    ear.is_strange = False
    assert sender.flush(5), "the thread lives"
    sender.close(1)
    spool.close()
