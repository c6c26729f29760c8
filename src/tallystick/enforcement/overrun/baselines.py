"""Baselines: what is usual for a series at an hour of the week, and how much it varies.

Pure. The level is a median and its spread a median absolute deviation (times 1.4826), so a few
bad hours in the history do not move it (Iglewicz and Hoaglin 1993; Hochenbaum, Vallis and
Kejariwal 2017 for seasonal series). History is taken from the closest season that has enough:
same hour of the week (3 weeks), same hour of the day (3 days), the last hours (6), the last
minutes (30). With less than three weeks nobody knows a weekend from a Monday: then the busiest of
those hours counts, which alarms late rather than falsely.

Within the hour, usage is counted as a compound Poisson process: the variance of a window is its
dispersion (variance / mean of minutes) times what is expected, plus the level's. These are
estimates and hence floats; money that is posted or shown never passes through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import median
from typing import NamedTuple

from tallystick.enforcement.overrun.series import Point, Series

MAD_TO_SIGMA = 1.4826
WEEK = 168
LEVEL_SPREAD_MIN = 0.15
"""No level is known better than this share of itself."""
_BLOCK = 5
"""Minutes of a block of ratios such as cost per call."""
_SETTLING = 10
"""The newest minutes are judged, so they do not say what is usual."""


class Usual(NamedTuple):
    """What is usual in one hour: amounts in USD/9 a minute."""

    level: float
    level_spread: float
    dispersion: float
    """Variance over mean of minutes, USD/9."""
    season: str
    """Which history it is from: week, day, hours or minutes."""

    def sigma(self, minutes: float) -> float:
        """The standard deviation of what a window of some minutes spends."""
        return sqrt(self.dispersion * self.level * minutes + (self.level_spread * minutes) ** 2)


class UsualRatio(NamedTuple):
    """What is usual of a ratio: its median and its spread."""

    level: float
    spread: float


def usual_at(series: Series, hour: int, until: int) -> Usual | None:
    """What is usual in an hour (its number since 1970); None: too little is known.

    Only minutes before `until` count: an overrun must not become what is usual.
    """
    found = _seasonal(series, hour, min(hour, until // 60))
    if found is None:
        found = _recent(series, until)
    if found is None:
        return None
    (level, spread), season = found
    spread = max(spread, LEVEL_SPREAD_MIN * level)
    return Usual(level, spread, _dispersion(series, until), season)


def usual_ratio(
    series: Series, until: int, part: Callable[[Point], int], whole: Callable[[Point], int]
) -> UsualRatio | None:
    """Median and spread of a ratio over blocks of minutes before `until`; None: too few."""
    ratios = []
    for start in range(until - 360, until - _BLOCK + 1, _BLOCK):
        block = series.window(start, start + _BLOCK)
        if whole(block) > 0:
            ratios.append(part(block) / whole(block))
    if len(ratios) < 6:
        return None
    return UsualRatio(*_robust(ratios))


def usual_rate(
    series: Series, until: int, part: Callable[[Point], int], whole: Callable[[Point], int]
) -> tuple[int, int]:
    """Events and trials over the day before `until`, such as errors and calls."""
    hour = until // 60
    points = [series.hours[one] for one in range(hour - 24, hour) if one in series.hours]
    if not points:
        recent = series.window(until - 60, until)
        return part(recent), whole(recent)
    return sum(map(part, points)), sum(map(whole, points))


def _seasonal(series: Series, hour: int, until_hour: int) -> tuple[tuple[float, float], str] | None:
    known_from = series.first_hour + 1  # the first hour may be a piece of one
    weekly = [hour - WEEK * week for week in (1, 2, 3, 4)]
    samples = [one for one in weekly if known_from <= one < until_hour]
    if len(samples) >= 3:
        near = [other for one in samples for other in (one - 1, one, one + 1)]
        return _levels(series, near), "week"
    daily = [hour - 24 * day for day in range(1, 8)]
    samples = [one for one in daily if known_from <= one < until_hour]
    if len(samples) >= 3:
        return _busiest(series, samples), "day"
    samples = list(range(max(known_from, until_hour - 24), until_hour))
    return (_busiest(series, samples), "hours") if len(samples) >= 6 else None


def _recent(series: Series, until: int) -> tuple[tuple[float, float], str] | None:
    start = max(series.first_minute, until - 120)
    if until - start < 30:
        return None
    blocks = [series.spend(one, one + 10) / 10 for one in range(start, until - 9, 10)]
    return _robust(blocks), "minutes"


def _levels(series: Series, hours: Sequence[int]) -> tuple[float, float]:
    known = series.hours
    return _robust([known[one].spend_units / 60 if one in known else 0.0 for one in hours])


def _busiest(series: Series, hours: Sequence[int]) -> tuple[float, float]:
    """Before a weekend and a night were seen, the busiest hour is what is usual."""
    known = series.hours
    return max(known[one].spend_units / 60 if one in known else 0.0 for one in hours), 0.0


def _robust(values: Sequence[float]) -> tuple[float, float]:
    """Median and 1.4826 times the median absolute deviation.

    >>> _robust([1.0, 2.0, 3.0, 4.0, 100.0])
    (3.0, 1.4826)
    """
    middle = median(values)
    return middle, MAD_TO_SIGMA * median(abs(value - middle) for value in values)


def _dispersion(series: Series, until: int) -> float:
    """Variance over mean of the kept minutes before `until`, without the top hundredth."""
    start = max(until - 360, series.first_minute)
    count = until - start
    if count < 10:
        return 0.0
    kept = series.minutes
    spends = sorted(kept[one].spend_units for one in range(start, until) if one in kept)
    total = sum(spends)
    if total <= 0:
        return 0.0
    cap = spends[-1 - len(spends) // 100]
    mean = total / count
    squares = sum(min(spend, cap) ** 2 for spend in spends)
    return max(squares / count - mean * mean, 0.0) / mean


def settled_minute(now_minute: int) -> int:
    """Minutes before this one may say what is usual."""
    return now_minute - _SETTLING
