"""Time: the only module that asks the machine what time it is.

Inside, an instant is an integer of microseconds since 1970-01-01 UTC ("micros").
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def is_over(span: int, since: int, now: int) -> bool:
    """Whether a span (micros) is over; also when the clock stepped back behind its beginning.

    Else what waits for the end would wait as long again as the clock stepped back.

    >>> is_over(5, 10, 12), is_over(5, 10, 15), is_over(5, 10, 9)
    (False, True, True)
    """
    return not 0 <= now - since < span


class Clock(Protocol):
    """Tells the time in micros."""

    def now(self) -> int:
        """Return microseconds since the epoch, UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Return the machine's time in micros."""
        return time.time_ns() // 1000


class FixedClock:
    """A clock that tests move by hand."""

    def __init__(self, micros: int) -> None:
        self.micros = micros

    def now(self) -> int:
        """Return the time that was set."""
        return self.micros


class Pace:
    """When to look again at everything that is open: after `every` micros, or more seldom.

    What is open may be much: then looks are further apart, and take a twentieth of the time. But
    not beyond `most`: a clock that was set forward meanwhile is no look that took long.

    >>> clock = FixedClock(0)
    >>> pace = Pace(clock, 3_000)
    >>> pace.is_due(), pace.is_due()
    (True, True)
    >>> clock.micros = 1_000  # that long it took
    >>> pace.done()
    >>> [pace.is_due() for clock.micros in (1_000, 19_999, 20_000)]
    [False, False, True]
    """

    def __init__(self, clock: Clock, every: int, most: int = 10 * MINUTE) -> None:
        self._clock = clock
        self._every = every
        self._most = most
        self._begun = self._since = self._rest = 0

    def is_due(self) -> bool:
        """Whether it is time: then the look begins here. It stays due until it is done."""
        now = self._clock.now()
        if is_over(self._rest, self._since, now):
            self._begun = now
            return True
        return False

    def done(self, *, has_more: bool = False) -> None:
        """The look has ended; one that left something needs not wait for `every`."""
        took = self._clock.now() - self._begun
        self._since = self._begun
        self._rest = max(0 if has_more else self._every, min(took * 20, self._most))


def to_datetime(micros: int) -> datetime:
    """Turn micros into an aware UTC datetime.

    >>> to_datetime(0).isoformat()
    '1970-01-01T00:00:00+00:00'
    """
    return _EPOCH + timedelta(microseconds=micros)


def from_datetime(moment: datetime) -> int:
    """Turn an aware datetime into micros; a naive one raises ValueError."""
    if moment.tzinfo is None:
        raise ValueError("a time without an offset has no instant")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def format_time(micros: int) -> str:
    """Write micros as RFC 3339 UTC.

    >>> format_time(1_500_000)
    '1970-01-01T00:00:01.500000Z'
    """
    return to_datetime(micros).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
