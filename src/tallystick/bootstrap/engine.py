"""The engine as a child of `serve`: started, watched and stopped here."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import msgspec

from tallystick.errors import InvariantBroken, StoreUnavailable
from tallystick.plumbing.embedded.child import spawn
from tallystick.workers.options import EngineOptions

_ENGINE_STOP_SECONDS = 60
_log = logging.getLogger(__name__)


class Engine:
    """The engine as a child process; restarted when it dies."""

    def __init__(self, options: EngineOptions, lock_fd: int, scratch: Path, log: Path) -> None:
        self._options = options
        self._lock_fd = lock_fd
        self._scratch = scratch
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._has_refused = False
        self.endpoint_port = 0

    def start(self) -> None:
        """Start the child and wait until it is ready; call from the main thread."""
        answer = msgspec.json.decode(self._spawn().readline() or b"null")
        if answer is None:
            raise StoreUnavailable(f"the engine did not start; see {self._log}")
        if "refused" in answer:
            raise InvariantBroken(answer["refused"])
        self.endpoint_port = answer["port"]
        self._options = msgspec.structs.replace(
            self._options, endpoint_port=self.endpoint_port, has_wipe=False
        )

    def _spawn(self) -> IO[bytes]:
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
        return self._process.stdout

    def is_running(self) -> bool:
        """Tell whether the child lives."""
        return self._process is not None and self._process.poll() is None

    def ensure_running(self) -> None:
        """Start it again if it died, unless it refused to run; call from the main thread.

        Requests are answered meanwhile: nobody waits until it is ready, its port is the same.
        """
        if self.is_running() or self._has_refused:
            return
        said = b""
        if self._process is not None and self._process.stdout is not None:
            with self._process.stdout as output:
                said = output.read()
        if b'"refused"' in said:
            self._has_refused = True
            _log.critical("the engine does not run: %s", said.decode("utf-8", "replace"))
        else:
            self._spawn()

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
