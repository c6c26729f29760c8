"""A full disk: what was acknowledged stays, what was not is refused, and room heals it.

The server's data folder is a small file system of its own, mounted in a namespace that only the
server's processes see, so an ordinary user can run this too where the kernel lets him.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tallystick.plumbing.embedded.child import spawn
from tests.server import Server, event

_MEGABYTES = 700
_LEFT_MEGABYTES = 12
_UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
_BATCH = 500


class SmallDisk(Server):
    """A server whose data folder has `_MEGABYTES`."""

    def __init__(self, mount: Path) -> None:
        self._mount = mount
        super().__init__(mount / "data")
        self.log = mount.with_name("small-disk.log")

    def spawn(self) -> subprocess.Popen[bytes]:
        mount = f"mount -t tmpfs -o size={_MEGABYTES}m tmpfs {self._mount}"
        with self.log.open("ab") as log:
            process = spawn(
                [*_UNSHARE, "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable]
                + ["-m", "tallystick.cli.main", "serve", "--port", "0"]
                + ["--data", str(self._mount / "data")],
                on_parent_death=signal.SIGTERM,
                stdout=subprocess.DEVNULL,
                stderr=log.fileno(),
            )
        self.folder = Path(f"/proc/{process.pid}/root{self._mount}/data")
        return process

    @property
    def ballast(self) -> Path:
        return self.folder.parent / "ballast"

    def fill(self) -> None:
        """Leave but a little room."""
        disk = os.statvfs(self.folder)
        with self.ballast.open("wb") as file:
            room = disk.f_bavail * disk.f_frsize - (_LEFT_MEGABYTES << 20)
            os.posix_fallocate(file.fileno(), 0, room)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SmallDisk]:
    if subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("the kernel does not let this user mount a disk in a namespace of its own")
    (tmp_path / "disk").mkdir()
    started = SmallDisk(tmp_path / "disk")
    started.start()
    yield started
    started.stop()


def batch(number: int) -> list[dict[str, object]]:
    """Events that compress badly: the disk is full soon."""
    return [
        event(
            event_id=f"e{number}-{place}",
            run_id=f"r{number}",
            request_id=str(uuid4()),
            attrs={"trace": f"{uuid4()}{uuid4()}"},
        )
        for place in range(_BATCH)
    ]


def send(server: Server, events: list[dict[str, object]]) -> httpx.Response:
    answer = server.client.post("/v1/events", json=events)
    assert answer.status_code in (200, 503), answer.text
    return answer


def test_a_full_disk_loses_nothing_and_heals(server: SmallDisk) -> None:
    """INV-10: acknowledged before and during it, all is there once; the rest was refused."""
    sent = 0
    for _ in range(5):
        assert send(server, batch(sent)).status_code == 200
        sent += 1
    server.fill()
    refused = batch(sent)
    while send(server, refused).status_code == 200:
        sent += 1
        refused = batch(sent)
        assert sent < 2_000, "the disk is never full"

    server.ballast.unlink()
    server.wait_until_ready()
    while (answer := send(server, refused)).status_code != 200:
        pass  # answered once its connections are back
    assert answer.json()["accepted"] + answer.json()["duplicates"] == _BATCH
    report = server.wait_until_settled()
    assert report["difference"] == 0
    rows = server.get("/v1/stats", **{"from": "2020-01-01T00:00:00Z"})["rows"]
    assert [(row["events"], row["runs"]) for row in rows] == [((sent + 1) * _BATCH, sent + 1)]
