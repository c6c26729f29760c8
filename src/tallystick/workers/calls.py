"""The lane of calls: finishes what a process that died left behind of them.

It looks every few seconds, at all calls under way: more seldom when that takes long. Repeating a
step does nothing, so where it runs and how often does not matter; one process at a time is enough.
"""

from __future__ import annotations

from collections.abc import Callable

from tallystick.clock import SECOND, Clock, Pace
from tallystick.enforcement.calls.recovery import CallRecovery
from tallystick.events.adapters import parse_body
from tallystick.events.appending import Appender
from tallystick.events.batch import identities_of
from tallystick.events.redaction import Redactor

_EVERY = 3 * SECOND


class CallKeeper:
    """Runs the recovery of calls from time to time."""

    name = "calls"

    def __init__(self, recovery: CallRecovery, clock: Clock) -> None:
        self._recovery = recovery
        self._clock = clock
        self._pace = Pace(clock, _EVERY)

    def recover(self) -> None:
        """Nothing is only in memory."""

    def step(self) -> bool:
        """Finish what is unfinished; False when it is too early to look, or nothing was."""
        if not self._pace.is_due():
            return False
        has_finished = any(self._recovery.run())
        self._pace.done()
        return has_finished


class LazyAppender:
    """Appends bodies of events as a door does; made ready when the first one comes.

    That is seldom, and getting ready reads the log.
    """

    def __init__(self, make: Callable[[], Appender], redactor: Redactor, clock: Clock) -> None:
        self._make = make
        self._redactor = redactor
        self._clock = clock
        self._appender: Appender | None = None

    def append(self, body: bytes) -> None:
        """Make events durable; a repeat of one is a duplicate."""
        if self._appender is None:
            appender = self._make()
            appender.open()
            self._appender = appender
        now = self._clock.now()
        parsed = parse_body(
            body,
            content_type="application/json",
            content_encoding="",
            headers={},
            received_at=now,
            redactor=self._redactor,
        )
        batch = parsed.batch
        self._appender.append(batch, identities_of(batch.columns, batch.size), now)
