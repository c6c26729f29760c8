"""What is known of credentials: looked up once, forgotten at every change of access.

A thread asks four times a second whether anything about access has changed, anywhere, and then
forgets all. A process that could not ask for CACHE_SECONDS_MAX believes nothing that it
remembers: it asks before it answers, and when the store is away it lets nobody in.

Both what exists and what does not is remembered within bounds, so that trying keys neither
fills memory nor asks the store for the same one twice.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from tallystick.errors import TallystickError

CACHE_SECONDS_MAX = 0.9
"""How old an answer may be that was not confirmed since."""

_POLL_SECONDS = 0.25
_FOUND_MAX = 20_000
_ABSENT_MAX = 20_000
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Known(Generic[T]):
    """Remembers `load(name)` for as long as `load_version()` stays the same."""

    def __init__(
        self,
        load: Callable[[str], T | None],
        load_version: Callable[[], int],
        *,
        tick: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._load_version = load_version
        self._tick = tick
        self._lock = threading.Lock()
        self._version = -1
        self._fresh_until = -math.inf
        self._found: dict[str, T] = {}
        self._absent: set[str] = set()
        self.derived: dict[Any, Any] = {}
        """What others derive from it: forgotten with it."""

    def is_fresh(self) -> bool:
        """Whether what is remembered may be believed."""
        return self._tick() < self._fresh_until

    def refresh(self) -> None:
        """Ask whether anything has changed; StoreUnavailable leaves it unfresh."""
        asked_at = self._tick()
        version = self._load_version()
        with self._lock:
            if version != self._version:
                self._forget(version)
            self._fresh_until = max(self._fresh_until, asked_at + CACHE_SECONDS_MAX)

    def forget(self) -> None:
        """This process changed something: believe nothing until asked again."""
        with self._lock:
            self._forget(-1)
            self._fresh_until = -math.inf

    def _forget(self, version: int) -> None:
        self._version = version
        self._found, self._absent, self.derived = {}, set(), {}

    def recall(self, name: str) -> T | None:
        """What is remembered; KeyError when it must be looked up."""
        if not self.is_fresh():
            raise KeyError(name)
        found = self._found.get(name)
        if found is None and name not in self._absent:
            raise KeyError(name)
        return found

    def look_up(self, name: str) -> T | None:
        """Ask the store, and remember its answer unless something has changed meanwhile."""
        if not self.is_fresh():
            self.refresh()
        version = self._version
        found = self._load(name)
        with self._lock:
            if version == self._version:
                self._remember(name, found)
        return found

    def _remember(self, name: str, found: T | None) -> None:
        if found is None:
            if len(self._absent) >= _ABSENT_MAX:
                self._absent.clear()
            self._absent.add(name)
        else:
            if len(self._found) >= _FOUND_MAX:
                self._found.clear()
            self._found[name] = found


class Refresher:
    """The thread that keeps what is known fresh; `flush` runs with it every few seconds."""

    def __init__(self, known: Known[Any], flush: Callable[[], None]) -> None:
        self._known = known
        self._flush = flush
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop, after what was used is written."""
        self._is_closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try(self._flush)

    def _run(self) -> None:
        looks = 0
        while not self._is_closing.wait(_POLL_SECONDS):
            self._try(self._known.refresh)
            looks += 1
            if looks % 20 == 0:
                self._try(self._flush)

    @staticmethod
    def _try(step: Callable[[], None]) -> None:
        try:
            step()
        except TallystickError as error:
            _log.warning("access: %s", error.message)
        except Exception:  # the thread must live on; what is not fresh is not believed
            _log.exception("access could not be refreshed")
