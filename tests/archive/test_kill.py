"""SIGKILL of a real archiver in the middle of its flushes: nothing lost, nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tallystick.archive import Archive, verify_archive
from tallystick.plumbing.embedded.child import spawn
from tests.archive.scene import append, archive_all, make_archiver, make_rows, require_exact
from tests.world import World

ROUNDS = int(os.environ.get("TALLYSTICK_KILL_ROUNDS", "3"))


def start(postgres_url: str, archive_url: str) -> subprocess.Popen[bytes]:
    process = spawn(
        [sys.executable, "-m", "tests.archive.victim", postgres_url, archive_url],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.slow
def test_killed_archivers_lose_and_double_nothing(
    world: World, postgres_url: str, archive_url: str, archive: Archive
) -> None:
    """Each round two archivers run at once on one archive, and both are killed."""
    rng = random.Random(os.environ.get("TALLYSTICK_KILL_SEED", "7"))
    world.positions.forget("archiver")
    before = 0
    for number in range(ROUNDS):
        for part in range(40):
            append(world.log, make_rows(25, seed=number * 1000 + part, hours=2))
        victims = [start(postgres_url, archive_url) for _ in range(2)]
        time.sleep(rng.uniform(0.02, 0.5))
        for victim in victims:
            victim.kill()
            victim.communicate()
            assert victim.returncode == -signal.SIGKILL  # and not of a failure of its own
        findings = verify_archive(archive)
        assert findings.violations == []
        rows = sum(one.rows for one in findings.partitions)
        assert rows >= before
        before = rows
    assert before > 0
    archive_all(make_archiver(world, archive))
    require_exact(world, archive)
