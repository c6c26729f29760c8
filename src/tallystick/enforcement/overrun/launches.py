"""Planned launches: what announced usage explains, and nothing beyond.

Pure. The scope of the launch may use `factor` times what is usual of it (or an amount on top).
Other series of the tenant rise with it, so they are allowed what the launch really brought, but
no more than if all of their own usage took part: a key that runs away during a launch still
alarms. Other values of the launch's own dimension are allowed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction

from tallystick.clock import MINUTE
from tallystick.enforcement.overrun.model import PlannedLaunch, SeriesKey

Usage = Callable[[SeriesKey, int], tuple[float, float]]
"""(observed, usual) spend of a series in its last so many minutes, USD/9."""


def allowance(
    launches: Iterable[PlannedLaunch], key: SeriesKey, at: int, minutes: int, usage: Usage
) -> int:
    """USD/9 that launches explain of what a series spent in its last minutes."""
    total = 0.0
    for launch in launches:
        if launch.tenant_id != key.tenant_id or launch.withdrawn_at is not None:
            continue
        share = _share(launch, at, minutes)
        if share <= 0:
            continue
        extra = launch.extra_units_per_minute * minutes * share
        factor = Fraction(launch.factor) - 1
        announced = SeriesKey(launch.tenant_id, launch.dimension, launch.value)
        observed, usual = usage(announced, minutes)
        planned = usual * factor * share + extra
        if key == announced:
            total += planned
        elif key.dimension != announced.dimension:
            own = usage(key, minutes)[1] * factor * share + extra
            total += min(max(observed - usual, 0.0), planned, own)
    return round(total)


def _share(launch: PlannedLaunch, at: int, minutes: int) -> float:
    """The share of the window that the launch covers."""
    start = at - minutes * MINUTE
    return max(min(at, launch.to_at) - max(start, launch.from_at), 0) / (minutes * MINUTE)
