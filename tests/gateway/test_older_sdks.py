"""The SDKs of one older major release, in a folder of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.place import Place

PINNED = ("openai==2.46.0", "anthropic==1.17.0")


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("older")
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--target", str(folder), *PINNED], capture_output=True, check=False, text=True
    )
    if done.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(done.stderr)
        pytest.skip(f"the older SDKs cannot be installed here: {done.stderr[-200:]}")
    return folder


def test_older_sdks_work_unchanged(place: Place, older: Path) -> None:
    script = Path(__file__).with_name("older_sdks.py")
    done = subprocess.run(
        [sys.executable, str(script), place.url, place.key],
        env={**os.environ, "PYTHONPATH": str(older)},
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found.pop("openai")[0], found.pop("anthropic")[0]) == ("2", "1")
    assert found == {
        "chat": 6,
        "stream": "tally " * 6,
        "response": "tally " * 6,
        "message": 6,
        "message_stream": "tally " * 6,
        "refused": 402,
    }
