"""The archive end to end: a real server archives, the command line verifies and restores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server

pytestmark = pytest.mark.slow


def run(*arguments: str, expected: int = 0) -> Any:
    command = [sys.executable, "-m", "tallystick.cli.main", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == expected, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout else done.stderr


def usage(number: int) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "event_type": "token_usage",
        "event_time": "2026-11-20T10:00:00Z",
        "tenant_id": "acme",
        "run_id": f"r{number % 9}",
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_input": 100 + number,
    }


def test_a_server_archives_and_is_restored(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYSTICK_ARCHIVE_FLUSH_SECONDS", "1")
    server = Server(data_folder).start()
    for start in range(0, 300, 50):
        batch = [usage(number) for number in range(start, start + 50)] + [usage(start)]
        server.client.post("/v1/events", json=batch).raise_for_status()
    server.wait_until_settled()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        followers = {one["name"]: one for one in server.get("/v1/freshness")["followers"]}
        if not followers["archiver"]["lag_events"]:
            break
        time.sleep(0.1)
    assert followers["archiver"]["position"] == followers["sink"]["position"] == 306
    found = run("archive", "verify", "--data", str(data_folder))
    assert found["violations"] == []
    assert [(one["offset_start"], one["offset_end"]) for one in found["partitions"]] == [(0, 306)]
    server.client.post("/v1/events", json=[usage(1000)]).raise_for_status()
    server.wait_until_settled()
    assert server.stop() == 0
    replayed = run("replay", "--from-archive", "--data", str(data_folder))
    assert replayed["same"] is True
    assert replayed["before"]["facts_digest"].startswith("301:")
    (path, *_) = sorted((data_folder / "archive" / "events").rglob("*.parquet"))
    content = path.read_bytes()
    os.chmod(path, 0o644)
    path.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert run("archive", "verify", "--data", str(data_folder), expected=1)["violations"]
    refused = run("replay", "--from-archive", "--data", str(data_folder), expected=2)
    assert "nothing was wiped" in refused
