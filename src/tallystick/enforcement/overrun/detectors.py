"""Detectors: what of a series is not usual at one moment.

Pure, without randomness. Each says what it saw as a `Finding`; a floor in money keeps cents
from alarming, a z-score keeps noise from it, and while an overrun is open milder limits apply
(hysteresis), so that it does not flap.

- burn rate: several windows, each with a long and a short one that must both burn (Google, "The
  Site Reliability Workbook", chapter 5: multi-window, multi-burn-rate), against the series' own
  usual rate or against a budget's;
- outlier: a modified z-score of spend in a quarter of an hour, of cost per call and of the cache
  hit share (Iglewicz and Hoaglin 1993);
- storms: the Wilson lower bound (1927) of the rate of errors or retries above what is usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from math import sqrt
from typing import NamedTuple

from tallystick.clock import MINUTE
from tallystick.enforcement.overrun.baselines import Usual, UsualRatio
from tallystick.enforcement.overrun.model import Finding, Kind, Severity
from tallystick.enforcement.overrun.series import Point, Series
from tallystick.units import USD, format_amount


class Pair(NamedTuple):
    """Burn `factor` times what is usual over both windows (minutes)."""

    long: int
    short: int
    factor: float
    severity: Severity


class Limits(NamedTuple):
    """What it takes to alarm."""

    floor_units: int = 10**9
    """USD/9 above what is usual: 1 dollar."""
    new_floor_units: int = 10 * 10**9
    """What a scope without history may spend in five minutes."""
    z: float = 6.0
    calls_min: int = 30
    """Fewer calls say nothing of the cost per call."""
    trials_min: int = 20
    """Fewer calls and tool calls are no storm."""
    storm_lift: float = 0.10
    """Storms are at least this far above the usual rate."""

    def milder(self) -> Limits:
        """The limits by which an open overrun is still one."""
        return self._replace(
            floor_units=self.floor_units // 4,
            new_floor_units=self.new_floor_units // 2,
            z=self.z / 2,
            storm_lift=self.storm_lift / 2,
        )


OWN_PAIRS = (
    Pair(2, 1, 6.0, Severity.CRITICAL),
    Pair(5, 1, 3.5, Severity.CRITICAL),
    Pair(60, 5, 2.0, Severity.CRITICAL),
    Pair(360, 60, 1.5, Severity.WARNING),
)
"""Against the series' own usual rate; the last one is for slow leaks."""

BUDGET_PAIRS = (
    Pair(60, 5, 14.4, Severity.CRITICAL),
    Pair(360, 30, 6.0, Severity.WARNING),
)
"""Against a budget's even rate; the workbook's figures: 2% and 5% of a month's budget."""

_OUTLIER_MINUTES = 15
_OUTLIER_RATIO = 1.3
_RATIO_MINUTES = (2, 5)
_COST_RATIO = 1.4
_STORM_MINUTES = (2, 5)
_WILSON_Z = 4.0


class Moment(NamedTuple):
    """One series at one time, with what is usual of it."""

    series: Series
    at: int
    """Micros of event time."""
    usual: Usual | None
    allowance: Callable[[int], int]
    """USD/9 that planned launches explain of the last so many minutes."""
    usual_cost: UsualRatio | None = None
    """USD/9 a call."""
    usual_cache: UsualRatio | None = None
    usual_errors: tuple[int, int] = (0, 0)
    usual_retries: tuple[int, int] = (0, 0)
    budget_units_per_minute: float = 0.0
    """What a budget allows, evenly spent; 0: no budget."""
    usual_before: Callable[[int], float] | None = None
    """USD/9 usual in the last so many minutes, when the window spans several hours."""

    @property
    def minute(self) -> int:
        """The number of the current minute, which is not over."""
        return self.at // MINUTE

    def start(self, minutes: int) -> int:
        """The first minute of a window of so many whole ones and the current one."""
        return self.minute - minutes

    def length(self, minutes: int) -> float:
        """How long that window is, in minutes."""
        return minutes + (self.at % MINUTE) / MINUTE

    def window(self, minutes: int) -> Point:
        """What was used in it."""
        return self.series.window(self.start(minutes), self.minute + 1)

    def spend(self, minutes: int) -> int:
        """What was spent in it."""
        return self.series.spend(self.start(minutes), self.minute + 1)


def find_spend(moment: Moment, limits: Limits, *, is_open: bool) -> Iterator[Finding]:
    """Burn rates and outliers of spend; `is_open` applies the milder limits."""
    limits = limits.milder() if is_open else limits
    usual = moment.usual
    if usual is None:
        yield from _find_new(moment, limits)
    else:
        burns = (_burn(moment, usual, pair, limits, is_open) for pair in OWN_PAIRS)
        yield from islice(filter(None, burns), 1)
    for pair in BUDGET_PAIRS if moment.budget_units_per_minute else ():
        found = _budget_burn(moment, pair, limits, is_open)
        if found:
            yield found
            break


def find_outliers(moment: Moment, limits: Limits, *, is_open: bool) -> Iterator[Finding]:
    """Outliers of spend, of cost per call, of the cache hit share."""
    limits = limits.milder() if is_open else limits
    usual = moment.usual
    if usual is not None:
        found = _spend_outlier(moment, usual, limits)
        if found:
            yield found
    if moment.usual_cost is not None:
        for minutes in _RATIO_MINUTES:
            found = _cost_outlier(moment, moment.usual_cost, minutes, limits, is_open)
            if found:
                yield found
                break


def find_storms(
    moment: Moment, limits: Limits, *, open_kinds: frozenset[Kind] = frozenset()
) -> Iterator[Finding]:
    """Storms of errors and of retries."""
    for kind, part, whole, usual in (
        (Kind.ERROR_STORM, errors_of, trials_of, moment.usual_errors),
        (Kind.RETRY_STORM, retries_of, calls_of, moment.usual_retries),
    ):
        own = limits.milder() if kind in open_kinds else limits
        for minutes in _STORM_MINUTES:
            found = _storm(moment, kind, part, whole, usual, minutes, own)
            if found:
                yield found
                break


def wilson_lower(events: int, trials: int, z: float = _WILSON_Z) -> float:
    """The lower end of the Wilson interval of a rate.

    >>> round(wilson_lower(50, 100, 1.96), 3)
    0.404
    """
    if trials <= 0:
        return 0.0
    rate, z2 = min(max(events / trials, 0.0), 1.0), z * z
    centre = rate + z2 / (2 * trials)
    spread = z * sqrt(rate * (1 - rate) / trials + z2 / (4 * trials * trials))
    return max((centre - spread) / (1 + z2 / trials), 0.0)


def calls_of(point: Point) -> int:
    """Model calls."""
    return point.calls


def trials_of(point: Point) -> int:
    """What can fail: model calls and tool calls."""
    return point.calls + point.tool_calls


def errors_of(point: Point) -> int:
    """What failed."""
    return point.errors


def retries_of(point: Point) -> int:
    """Calls of attempts after the first."""
    return point.retries


def spend_of(point: Point) -> int:
    """USD/9."""
    return point.spend_units


def cache_reads_of(point: Point) -> int:
    """Input tokens read from a cache."""
    return point.cache_reads


def inputs_of(point: Point) -> int:
    """Input tokens, those from a cache included."""
    return point.tokens_input


def _find_new(moment: Moment, limits: Limits) -> Iterator[Finding]:
    observed, allowed = moment.spend(5), moment.allowance(5)
    if observed - allowed >= limits.new_floor_units:
        yield Finding(
            Kind.BURN_RATE,
            "new scope",
            Severity.WARNING,
            moment.start(5) * MINUTE,
            observed,
            allowed,
            observed - allowed,
            f"spent {_usd(observed)} USD in 5 minutes, without a history to compare with",
        )


def _burn(
    moment: Moment, usual: Usual, pair: Pair, limits: Limits, is_open: bool
) -> Finding | None:
    factor = 1 + (pair.factor - 1) / 2 if is_open else pair.factor
    observed = moment.spend(pair.long)
    if observed < limits.floor_units:
        return None
    expected = _expected(moment, usual, pair.long)
    excess = observed - expected
    length = moment.length(pair.long)
    if excess < limits.floor_units or observed < factor * expected:
        return None
    if excess < limits.z * usual.sigma(length):
        return None
    if moment.spend(pair.short) < factor * _expected(moment, usual, pair.short):
        return None
    return Finding(
        Kind.BURN_RATE,
        f"burn {_length(pair.long)}",
        pair.severity,
        moment.start(pair.long) * MINUTE,
        observed,
        round(expected),
        round(excess),
        f"{_times(observed, expected)} the usual spend over {_length(pair.long)} "
        f"and {_length(pair.short)} (usual by {usual.season})",
    )


def _budget_burn(moment: Moment, pair: Pair, limits: Limits, is_open: bool) -> Finding | None:
    factor = pair.factor / 2 if is_open else pair.factor
    rate = moment.budget_units_per_minute
    observed = moment.spend(pair.long)
    allowed = round(rate * pair.long) + moment.allowance(pair.long)
    is_burning = observed >= factor * allowed and moment.spend(pair.short) >= factor * (
        rate * pair.short + moment.allowance(pair.short)
    )
    if not is_burning or observed - allowed < limits.floor_units:
        return None
    return Finding(
        Kind.BURN_RATE,
        f"budget {_length(pair.long)}",
        pair.severity,
        moment.start(pair.long) * MINUTE,
        observed,
        allowed,
        observed - allowed,
        f"{_times(observed, allowed)} the budget's even rate over {_length(pair.long)}",
    )


def _spend_outlier(moment: Moment, usual: Usual, limits: Limits) -> Finding | None:
    observed = moment.spend(_OUTLIER_MINUTES)
    if observed < limits.floor_units:
        return None
    expected = _expected(moment, usual, _OUTLIER_MINUTES)
    excess = observed - expected
    sigma = usual.sigma(moment.length(_OUTLIER_MINUTES))
    if excess < limits.floor_units or observed < _OUTLIER_RATIO * expected:
        return None
    if excess < limits.z * sigma:
        return None
    if moment.spend(5) < _OUTLIER_RATIO * _expected(moment, usual, 5):
        return None  # it was, and is over
    return Finding(
        Kind.OUTLIER,
        "spend 15m",
        Severity.WARNING,
        moment.start(_OUTLIER_MINUTES) * MINUTE,
        observed,
        round(expected),
        round(excess),
        f"{excess / sigma if sigma else 99:.1f} standard deviations above the usual quarter "
        f"of an hour (usual by {usual.season})",
    )


def _cost_outlier(
    moment: Moment, usual: UsualRatio, minutes: int, limits: Limits, is_open: bool
) -> Finding | None:
    point = moment.window(minutes)
    if point.calls < limits.calls_min:
        return None
    excess = point.spend_units - usual.level * point.calls - moment.allowance(minutes)
    spread = max(usual.spread, 0.05 * usual.level) * sqrt(max(5 / minutes, 1.0))
    factor = 1 + (_COST_RATIO - 1) / 2 if is_open else _COST_RATIO
    if excess < limits.floor_units or point.spend_units < factor * usual.level * point.calls:
        return None
    if point.spend_units / point.calls - usual.level < limits.z * spread:
        return None
    detail = f"a call costs {_times(point.spend_units, usual.level * point.calls)} what is usual"
    detector = "cost per call"
    cache = moment.usual_cache
    if cache is not None and cache.level >= 0.1 and point.tokens_input > 0:
        share = point.cache_reads / point.tokens_input
        if share < cache.level / 2 and cache.level - share > limits.z * cache.spread:
            detector = "cache hit share"
            detail += (
                f"; {share:.0%} of input tokens came from the cache, usual is {cache.level:.0%}"
            )
    return Finding(
        Kind.OUTLIER,
        detector,
        Severity.CRITICAL,
        moment.start(minutes) * MINUTE,
        point.spend_units,
        round(usual.level * point.calls),
        round(excess),
        detail,
    )


def _storm(
    moment: Moment,
    kind: Kind,
    part: Callable[[Point], int],
    whole: Callable[[Point], int],
    usual: tuple[int, int],
    minutes: int,
    limits: Limits,
) -> Finding | None:
    point = moment.window(minutes)
    events, trials = part(point), whole(point)
    if trials < limits.trials_min or events < 10:
        return None
    usual_rate = usual[0] / usual[1] if usual[1] > 0 else 0.0
    if wilson_lower(events, trials) < max(2 * usual_rate, usual_rate + limits.storm_lift):
        return None
    word = "failed" if kind is Kind.ERROR_STORM else "were retries"
    wasted = point.retry_units if kind is Kind.RETRY_STORM else 0
    return Finding(
        kind,
        f"{'errors' if kind is Kind.ERROR_STORM else 'retries'} {_length(minutes)}",
        Severity.CRITICAL,
        moment.start(minutes) * MINUTE,
        events,
        round(usual_rate * trials),
        wasted,
        f"{events} of {trials} calls {word} in {_length(minutes)}; usual is {usual_rate:.1%}"
        + (f"; {_usd(wasted)} USD went into retries" if wasted else ""),
    )


def _expected(moment: Moment, usual: Usual, minutes: int) -> float:
    length = moment.length(minutes)
    own = moment.usual_before(minutes) if moment.usual_before else usual.level * length
    return own + moment.allowance(minutes)


def _length(minutes: int) -> str:
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


def _times(observed: float, expected: float) -> str:
    return f"{observed / expected:.1f} times" if expected > 0 else "more than"


def _usd(units: int) -> str:
    return format_amount(units // 10**7 * 10**7, USD)
