"""The scripted upstream as a process of a test or benchmark; stopped by its own id."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import httpx

from tallystick.plumbing.embedded.child import spawn


class Upstream:
    """One running upstream; `truth` is what it would bill."""

    def __init__(self, port: int = 0) -> None:
        self._process = spawn(
            [sys.executable, "-m", "tests.upstream", "--port", str(port)],
            on_parent_death=signal.SIGKILL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.pid = self._process.pid
        self.url = f"http://127.0.0.1:{self.port}"

    def truth(self) -> list[dict[str, Any]]:
        answer = httpx.get(self.url + "/truth", timeout=30)
        return list(answer.json()["requests"])

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
