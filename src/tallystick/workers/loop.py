"""A follower's loop in a thread: step while there is work, pause, survive an outage.

A step costs much by itself (parts in ClickHouse, sums, positions), and little more for each
event. So steps begin a while apart, and each takes all that has come meanwhile; only a step that
took as much as one may goes on at once. A step that took long waits longer: where cores are short,
steps are few and large. One follower's step can wake another's loop.

A step that fails on an unreachable store is tried again with growing pauses. A broken
invariant stops the lane: going on would turn one wrong number into many.
"""

from __future__ import annotations

import logging
import threading
import time
from enum import IntEnum
from typing import Protocol

from tallystick.errors import InvariantBroken

_PAUSE_SECONDS_MAX = 5.0
_APART_OF_DURATION = 3
"""How many times its duration a step begins after the one before."""

_APART_SECONDS_MAX = 2.0
"""How far apart steps begin at most, unless their pace is slower: people wait for them."""

_log = logging.getLogger(__name__)


class Progress(IntEnum):
    """What a step found to do; a plain True is SOME."""

    NOTHING = 0
    SOME = 1
    FULL = 2
    """As much as a step takes: there is probably more."""


class Follower(Protocol):
    """Something that makes progress in steps."""

    name: str

    def step(self) -> bool | Progress:
        """Do one piece of work; false when there was nothing to do."""
        ...

    def recover(self) -> None:
        """Forget what is only in memory; the next step reads back what has landed."""
        ...


class FollowerLoop:
    """Runs one follower until stopped; `failure` says why it is not progressing."""

    def __init__(
        self,
        follower: Follower,
        *,
        idle_seconds: float,
        every_seconds: float = 0.0,
        wakes: FollowerLoop | None = None,
    ) -> None:
        """Steps begin `every_seconds` apart, and up to 2 s when they take long.

        A full one is followed at once.

        `idle_seconds` after a step that found nothing it looks again, or when it is woken: each
        step that does something wakes the loop of `wakes`.
        """
        self._follower = follower
        self._idle_seconds = idle_seconds
        self._every_seconds = every_seconds
        self._wakes = wakes
        self._stop = threading.Event()
        self._woken = threading.Event()
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

    def wake(self) -> None:
        """There may be something to do."""
        self._woken.set()

    def stop(self) -> None:
        """Finish the step under way, then end."""
        self._stop.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = self._idle_seconds
        has_failed = False
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                if has_failed:  # in here: to recover needs the stores, too
                    self._follower.recover()
                    has_failed = False
                progress = self._follower.step()
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
            self._rest(progress, begun)

    def _rest(self, progress: bool | Progress, begun: float) -> None:
        if not progress:
            self._woken.wait(self._idle_seconds)
            self._woken.clear()
            return
        if self._wakes is not None:
            self._wakes.wake()
        now = time.monotonic()
        rested = min((now - begun) * _APART_OF_DURATION, _APART_SECONDS_MAX)
        apart = max(rested, self._every_seconds) if self._every_seconds else 0.0
        if progress != Progress.FULL and begun + apart > now:
            self._stop.wait(begun + apart - now)
