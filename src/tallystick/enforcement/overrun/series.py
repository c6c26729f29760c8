"""Series: what each scope used, minute by minute of event time.

Pure. Points are signed integers that add up, so a late event or a correction is one more delta.
Minutes are kept for six hours (what detectors look at), hours for four weeks (what is usual).
The number of series is bounded: when a dimension of a tenant has too many values, those that
spent least in the last hour go first, and a runaway is never among them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tallystick.clock import HOUR, MINUTE
from tallystick.enforcement.overrun.model import SeriesKey

MINUTES_KEPT = 6 * 60 + 10
HOURS_KEPT = 4 * 168 + 2
VALUES_MAX = 2_000
"""Values watched per tenant and dimension: top movers; the rest is in the tenant's own series."""


class Point(NamedTuple):
    """Sums over a stretch of time."""

    spend_units: int = 0
    """USD/9."""
    calls: int = 0
    tool_calls: int = 0
    errors: int = 0
    retries: int = 0
    """Calls of attempts after the first."""
    retry_units: int = 0
    """USD/9 spent on them."""
    tokens_input: int = 0
    tokens_output: int = 0
    cache_reads: int = 0

    def plus(self, other: Point) -> Point:
        """The sum of two points."""
        return Point(*map(sum, zip(self, other, strict=True)))


class Change(NamedTuple):
    """One minute (its number since 1970) of one series, as a delta."""

    key: SeriesKey
    minute: int
    point: Point


NOTHING = Point()


class Series:
    """The minutes and hours of one scope."""

    def __init__(self, first_minute: int) -> None:
        self.first_minute = first_minute
        self.minutes: dict[int, Point] = {}
        self.hours: dict[int, Point] = {}
        self.first_hour = first_minute // 60

    def add(self, minute: int, point: Point) -> None:
        """Add a delta of a minute."""
        self.minutes[minute] = self.minutes.get(minute, NOTHING).plus(point)
        self.add_hour(minute // 60, point)
        self.first_minute = min(self.first_minute, minute)

    def add_hour(self, hour: int, point: Point) -> None:
        """Add a delta of an hour whose minutes are not kept."""
        self.hours[hour] = self.hours.get(hour, NOTHING).plus(point)
        self.first_hour = min(self.first_hour, hour)

    def window(self, start: int, end: int) -> Point:
        """The sum over the minutes [start, end).

        >>> series = Series(10)
        >>> series.add(10, Point(spend_units=5, calls=1))
        >>> series.window(5, 11).spend_units
        5
        """
        kept = self.minutes
        points = [kept[minute] for minute in range(start, end) if minute in kept]
        return Point(*map(sum, zip(*points, strict=True))) if points else NOTHING

    def spend(self, start: int, end: int) -> int:
        """What was spent in the minutes [start, end), USD/9; long windows by whole hours."""
        if end - start >= 120:
            first, last = -(-start // 60), end // 60
            known = (self.hours.get(hour, NOTHING).spend_units for hour in range(first, last))
            return self.spend(start, first * 60) + sum(known) + self.spend(last * 60, end)
        kept = self.minutes
        return sum(kept[minute].spend_units for minute in range(start, end) if minute in kept)

    def trim(self, now_minute: int) -> None:
        """Forget what nothing looks at any more."""
        oldest, oldest_hour = now_minute - MINUTES_KEPT, now_minute // 60 - HOURS_KEPT
        for minute in [one for one in self.minutes if one < oldest]:
            del self.minutes[minute]
        for hour in [one for one in self.hours if one < oldest_hour]:
            del self.hours[hour]


class Book:
    """Every series that is watched; `at` is the greatest event time taken in (micros)."""

    def __init__(self, *, values_max: int = VALUES_MAX) -> None:
        self.series: dict[SeriesKey, Series] = {}
        self.at = 0
        self._values_max = values_max
        self._trimmed_hour = 0

    def take(self, changes: Iterable[Change]) -> set[SeriesKey]:
        """Take deltas in; return the series that changed."""
        changed: set[SeriesKey] = set()
        oldest = self.at // MINUTE - MINUTES_KEPT
        for key, minute, point in changes:
            series = self.series.get(key)
            if series is None:
                series = self.series[key] = Series(minute)
            if minute >= oldest:
                series.add(minute, point)
                changed.add(key)
            else:
                series.add_hour(minute // 60, point)
        return changed

    def take_hours(self, hours: Iterable[tuple[SeriesKey, int, Point]]) -> None:
        """Take in hours of the past, for what is usual."""
        for key, hour, point in hours:
            series = self.series.get(key)
            if series is None:
                series = self.series[key] = Series((hour + 1) * 60)
            series.add_hour(hour, point)

    def move(self, at: int) -> bool:
        """Time has come to `at`; once an hour forget what is old or too much, and say so."""
        self.at = max(self.at, at)
        hour = self.at // HOUR
        if hour == self._trimmed_hour:
            return False
        self._trimmed_hour = hour
        for key, series in list(self.series.items()):
            series.trim(self.at // MINUTE)
            if not series.hours:
                del self.series[key]
        self._bound()
        return True

    def _bound(self) -> None:
        by_dimension: dict[tuple[str, str], list[SeriesKey]] = {}
        for key in self.series:
            by_dimension.setdefault((key.tenant_id, key.dimension), []).append(key)
        minute = self.at // MINUTE
        for keys in by_dimension.values():
            if len(keys) > self._values_max:
                keys.sort(key=lambda one: -self.series[one].spend(minute - 60, minute + 1))
                for key in keys[self._values_max :]:
                    del self.series[key]
