"""`tallystick demo`, then `replay`: the log alone gives the same totals again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec


def test_replay_gives_the_same_totals(demo_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tallystick.cli.main", "replay", "--json"]
        + ["--data", str(demo_folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = msgspec.json.decode(done.stdout)
    assert answer["same"]
    assert answer["after"]["facts"] > 34_000
    assert answer["after"]["duplicates"] > 1_000
