"""Signs of life of a child process: it writes an empty line now and then, the parent counts.

A process that ended is seen by the system. One that hangs (stopped, or waiting for itself for
ever) is not: it keeps its memory, its port and its locks, and answers nothing. So the child
says every two seconds that it goes on, and the parent kills it after long silence.

The parent counts its own looks and no time: when both were stopped (a laptop's lid, Ctrl-Z) or
the parent itself was kept from looking, the child has missed nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import IO

_BEAT_SECONDS = 2.0
_READ_BYTES = 65536


class Heartbeat:
    """In the child: an empty line on its output every two seconds, until it ends."""

    def __init__(self, output_fd: int) -> None:
        self._output_fd = output_fd
        self._ask: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def depend_on(self, ask: Callable[[], object]) -> None:
        """From now on ask this before each beat: while it does not return, there is none."""
        self._ask = ask

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            if self._ask is not None:
                self._ask()
            os.write(self._output_fd, b"\n")
            pause.wait(_BEAT_SECONDS)


class Pulse:
    """In the parent: what the child said, and for how many looks it has said nothing."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self.said = b""
        """Its words: what it wrote without the empty lines."""
        self.silent_looks = 0

    def wait_for_words(self) -> bytes:
        """Wait for the first line that is not empty; b"" when the child ended before."""
        while (line := self._output.readline()) == b"\n":
            pass
        self.said = line
        return line

    def look(self) -> None:
        """Take in what has come, without waiting."""
        os.set_blocking(self._output.fileno(), False)
        heard = self._output.read(_READ_BYTES) or b""
        self.said = (self.said + heard).strip()
        self.silent_looks = 0 if heard else self.silent_looks + 1

    def close(self) -> None:
        """Let the pipe go."""
        self._output.close()
