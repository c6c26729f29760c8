"""The engine as a child of `serve`: started, watched and stopped here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from tallystick.errors import InvariantBroken, StoreUnavailable
from tallystick.plumbing.embedded.child import spawn
from tallystick.workers.options import EngineOptions

_ENGINE_STOP_SECONDS = 60


class Engine:
    """The engine as a child process; restarted when it dies."""

    def __init__(self, options: EngineOptions, lock_fd: int, scratch: Path, log: Path) -> None:
        self._options = options
        self._lock_fd = lock_fd
        self._scratch = scratch
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint_port = 0

    def start(self) -> None:
        """Start the child and wait until it is ready; call from the main thread."""
        environment = {
            **os.environ,
            "TALLYSTICK_ENGINE": msgspec.json.encode(self._options).decode(),
            "TMPDIR": str(self._scratch),
        }
        with self._log.open("ab") as log:
            self._process = spawn(
                [sys.executable, "-m", "tallystick.workers.engine"],
                keep_open=[self._lock_fd],
                on_parent_death=signal.SIGKILL,
                stdout=subprocess.PIPE,
                stderr=log.fileno(),
                environment=environment,
            )
        if self._process.stdout is None:
            raise StoreUnavailable("the engine has no output to tell its port")
        line = self._process.stdout.readline()
        if not line:
            raise StoreUnavailable(f"the engine did not start; see {self._log}")
        answer = msgspec.json.decode(line)
        if "refused" in answer:
            raise InvariantBroken(answer["refused"])
        self.endpoint_port = answer["port"]
        self._options = msgspec.structs.replace(
            self._options, endpoint_port=self.endpoint_port, has_wipe=False
        )

    def is_running(self) -> bool:
        """Tell whether the child lives."""
        return self._process is not None and self._process.poll() is None

    def ensure_running(self) -> None:
        """Start it again if it died; call from the main thread."""
        if not self.is_running():
            self.start()

    def stop(self) -> None:
        """Let it finish its step, then end it."""
        if self._process is None or not self.is_running():
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_ENGINE_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
