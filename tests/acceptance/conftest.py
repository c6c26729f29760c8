"""One run of the demo command serves every acceptance test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="package")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder after `tallystick demo --exit`, in which every figure agreed."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    command = [sys.executable, "-m", "tallystick.cli.main", "demo", "--exit", "--data", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    assert "every figure agrees" in done.stdout
    return folder
