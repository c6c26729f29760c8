"""A follower's loop in a thread: step while there is work, pause, survive an outage.

A step that fails on an unreachable store is tried again with growing pauses. A broken
invariant stops the lane: going on would turn one wrong number into many.
"""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from tallystick.errors import InvariantBroken

_PAUSE_SECONDS_MAX = 5.0
_log = logging.getLogger(__name__)


class Follower(Protocol):
    """Something that makes progress in steps."""

    name: str

    def step(self) -> bool:
        """Do one piece of work; False when there was nothing to do."""
        ...

    def recover(self) -> None:
        """Forget what is only in memory; the next step reads back what has landed."""
        ...


class FollowerLoop:
    """Runs one follower until stopped; `failure` says why it is not progressing."""

    def __init__(self, follower: Follower, *, idle_seconds: float) -> None:
        self._follower = follower
        self._idle_seconds = idle_seconds
        self._stop = threading.Event()
        self.failure: str | None = None
        self._thread = threading.Thread(target=self._run, name=follower.name, daemon=True)

    @property
    def name(self) -> str:
        """The follower's."""
        return self._follower.name

    def is_alive(self) -> bool:
        """Whether it goes on: a broken invariant ends it."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the step under way, then end."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = self._idle_seconds
        has_failed = False
        while not self._stop.is_set():
            try:
                if has_failed:  # in here: to recover needs the stores, too
                    self._follower.recover()
                    has_failed = False
                progressed = self._follower.step()
            except InvariantBroken as error:
                self.failure = error.message
                _log.critical("%s stopped: %s", self._follower.name, error.message)
                return
            except Exception as error:  # an outage of a store must not end the lane
                self.failure = f"{type(error).__name__}: {error}"
                _log.warning("%s: %s; trying again", self._follower.name, self.failure)
                has_failed = True
                pause = min(max(pause, 0.1) * 2, _PAUSE_SECONDS_MAX)
                self._stop.wait(pause)
                continue
            self.failure = None
            pause = self._idle_seconds
            if not progressed:
                self._stop.wait(self._idle_seconds)
