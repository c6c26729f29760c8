"""The engine as a child of `serve`: started, watched and stopped here."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from tallystick.errors import InvariantBroken, StoreUnavailable
from tallystick.plumbing.embedded.child import spawn
from tallystick.plumbing.embedded.heartbeat import Pulse
from tallystick.workers.options import EngineOptions

_ENGINE_STOP_SECONDS = 60
_log = logging.getLogger(__name__)


class Engine:
    """The engine as a child process; started again when it dies, killed when it hangs."""

    def __init__(
        self,
        options: EngineOptions,
        lock_fd: int,
        scratch: Path,
        log: Path,
        *,
        silent_looks_max: int,
    ) -> None:
        """It hangs when `ensure_running` hears nothing of it so many times; 0: it never does."""
        self._port = _reserve_port()
        self._options = msgspec.structs.replace(
            options, endpoint_port=self._port.getsockname()[1] if self._port else 0
        )
        self._lock_fd = lock_fd
        self._scratch = scratch
        self._log = log
        self._silent_looks_max = silent_looks_max
        self._process: subprocess.Popen[bytes] | None = None
        self._pulse: Pulse | None = None
        self._has_refused = False
        self.endpoint_port = 0

    def start(self) -> None:
        """Start the child and wait until it is ready; call from the main thread."""
        answer = msgspec.json.decode(self._spawn().wait_for_words() or b"null")
        if answer is None:
            raise StoreUnavailable(f"the engine did not start; see {self._log}")
        if "refused" in answer:
            raise InvariantBroken(answer["refused"])
        self.endpoint_port = answer["port"]
        self._options = msgspec.structs.replace(
            self._options, endpoint_port=self.endpoint_port, has_wipe=False
        )

    def _spawn(self) -> Pulse:
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
        if self._pulse is not None:
            self._pulse.close()
        self._pulse = Pulse(self._process.stdout)
        return self._pulse

    def is_running(self) -> bool:
        """Tell whether the child lives."""
        return self._process is not None and self._process.poll() is None

    def ensure_running(self) -> None:
        """Start it again if it died, unless it refused to run; call from the main thread.

        Requests are answered meanwhile: nobody waits until it is ready, its port is the same.
        One that hangs is killed, and started again by the next call.
        """
        if self._process is None or self._pulse is None or self._has_refused:
            return
        has_ended = not self.is_running()  # before it is heard: a last word is not missed
        self._pulse.look()
        if not has_ended:
            self._kill_if_hung(self._process, self._pulse.silent_looks)
            return
        if b'"refused"' in self._pulse.said:
            self._has_refused = True
            said = self._pulse.said.decode("utf-8", "replace")
            _log.critical("the engine does not run: %s", said)
        else:
            self._spawn()

    def _kill_if_hung(self, process: subprocess.Popen[bytes], silent_looks: int) -> None:
        if 0 < self._silent_looks_max <= silent_looks:
            _log.critical("the engine has hung for %d seconds and is killed", silent_looks)
            process.kill()

    def stop(self) -> None:
        """Let it finish its step, then end it."""
        if self._pulse is not None:
            self._pulse.close()
        if self._port is not None:
            self._port.close()
        if self._process is None or not self.is_running():
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_ENGINE_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _reserve_port() -> socket.socket | None:
    """A free loopback port for each engine of ours and nobody else, also between two of them.

    Nobody listens on this socket: while no engine does, connections are refused. Elsewhere than
    on Linux it could be given connections all the same; there the first engine takes a port.
    """
    if sys.platform != "linux":
        return None
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved
