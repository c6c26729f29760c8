"""The watch: takes deltas of minutes in, and says what runs away and what has recovered.

It holds the series, what is usual of each and the open overruns, and touches no store: the
worker gives it deltas and writes down what it says, and the back-test does the same. Of one
incident several series tell (its key, its feature, the whole tenant): a broader one (of more
usual usage) is left out when a narrower one explains most of its excess, and so are mild parts
of a broad one (each user of a feature), so that one incident is one alarm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from tallystick.clock import MINUTE
from tallystick.enforcement.overrun.baselines import (
    Usual,
    UsualRatio,
    settled_minute,
    usual_at,
    usual_rate,
    usual_ratio,
)
from tallystick.enforcement.overrun.detectors import (
    Limits,
    Moment,
    cache_reads_of,
    calls_of,
    errors_of,
    find_outliers,
    find_spend,
    find_storms,
    inputs_of,
    retries_of,
    spend_of,
    trials_of,
)
from tallystick.enforcement.overrun.launches import allowance
from tallystick.enforcement.overrun.model import (
    Finding,
    Kind,
    Overrun,
    PlannedLaunch,
    SeriesKey,
    Severity,
)
from tallystick.enforcement.overrun.series import Book, Change, Series
from tallystick.ids import IdSource

RECOVERED_AFTER = 10 * MINUTE
"""An overrun ends when even the milder limits were kept for so long."""

_ORDER = ("key", "user", "feature", "tool", "model", "project", "team", "tenant")
"""Which dimension is told of when two say the same."""
_EXPLAINED_SHARE = 0.7


class Said(NamedTuple):
    """What changed at one moment."""

    opened: list[Overrun]
    lasting: list[Overrun]
    """Seen again: their figures are newer."""
    closed: list[Overrun]


class _Known(NamedTuple):
    """What is usual of one series; looked up anew once an hour."""

    stamp: int
    usual: Usual | None
    levels: dict[int, float]
    cost: UsualRatio | None
    cache: UsualRatio | None
    errors: tuple[int, int]
    retries: tuple[int, int]


class Watch:
    """Watches every series; one process at a time."""

    def __init__(
        self,
        ids: IdSource,
        *,
        limits: Limits | None = None,
        book: Book | None = None,
        open_overruns: Iterable[Overrun] = (),
    ) -> None:
        self.book = book or Book()
        self.launches: Sequence[PlannedLaunch] = ()
        self.budget_rates: dict[SeriesKey, float] = {}
        """USD/9 a minute that a budget allows, for series that have one."""
        self._ids = ids
        self._limits = limits or Limits()
        self._known: dict[SeriesKey, _Known] = {}
        self._open: dict[tuple[SeriesKey, Kind], Overrun] = {
            (one.key, one.kind): one for one in open_overruns
        }

    def take(self, changes: Iterable[Change]) -> set[SeriesKey]:
        """Take deltas in; return the series that changed."""
        return self.book.take(changes)

    def judge(self, at: int, changed: Iterable[SeriesKey]) -> Said:
        """Say what runs away at event time `at` among series that changed."""
        if self.book.move(at):
            self._known = {key: one for key, one in self._known.items() if key in self.book.series}
        found: list[tuple[SeriesKey, Finding]] = []
        for key in changed:
            series = self.book.series.get(key)
            if series is not None:
                found += [(key, one) for one in self._findings(key, series, at)]
        return self._episodes(self._narrowest(found), at)

    def open_overruns(self) -> list[Overrun]:
        """Every open overrun."""
        return list(self._open.values())

    def forget(self, overrun: Overrun) -> None:
        """Another process has this one open already."""
        self._open.pop((overrun.key, overrun.kind), None)

    def _findings(self, key: SeriesKey, series: Series, at: int) -> list[Finding]:
        open_kinds = frozenset(kind for kind in Kind if (key, kind) in self._open)
        minute = at // MINUTE
        recent = series.window(minute - 5, minute + 1)
        floor = self._limits.floor_units // 4
        trials = trials_of(recent) >= self._limits.trials_min
        is_leaking = series.spend(minute - 60, minute + 1) >= floor
        if not (open_kinds or trials or recent.spend_units >= floor or is_leaking):
            return []
        moment = self._moment(key, series, at)
        is_burning = Kind.BURN_RATE in open_kinds
        found = [
            *find_spend(moment, self._limits, is_open=is_burning),
            *find_storms(moment, self._limits, open_kinds=open_kinds),
        ]
        if not any(one.kind is Kind.BURN_RATE for one in found) or Kind.OUTLIER in open_kinds:
            is_outlying = Kind.OUTLIER in open_kinds
            found += list(find_outliers(moment, self._limits, is_open=is_outlying))[:1]
        return found

    def _moment(self, key: SeriesKey, series: Series, at: int) -> Moment:
        known = self._usual(key, series, at // MINUTE)

        def usual_before(minutes: int) -> float:
            return self._usage(key, at, minutes)[1]

        def allowed(minutes: int) -> int:
            if not self.launches:
                return 0
            return allowance(
                self.launches, key, at, minutes, lambda other, span: self._usage(other, at, span)
            )

        return Moment(
            series,
            at,
            known.usual,
            allowed,
            known.cost,
            known.cache,
            known.errors,
            known.retries,
            self.budget_rates.get(key, 0.0),
            usual_before,
        )

    def _usage(self, key: SeriesKey, at: int, minutes: int) -> tuple[float, float]:
        """(observed, usual) spend of a series in its last minutes."""
        series = self.book.series.get(key)
        if series is None:
            return 0.0, 0.0
        minute = at // MINUTE
        start = minute - minutes
        known = self._usual(key, series, minute)
        usual, place = 0.0, start
        end = minute + (at % MINUTE) / MINUTE
        while place < end:
            hour = place // 60
            upto = min((hour + 1) * 60, end)
            usual += self._level(known, series, hour) * (upto - place)
            place = int(upto) if upto < end else minute + 1
        return series.spend(start, minute + 1), usual

    def _level(self, known: _Known, series: Series, hour: int) -> float:
        if known.usual is None:
            return 0.0
        if known.usual.season in ("minutes", "hours"):
            return known.usual.level
        if hour not in known.levels:
            found = usual_at(series, hour, hour * 60)
            known.levels[hour] = found.level if found else known.usual.level
        return known.levels[hour]

    def _usual(self, key: SeriesKey, series: Series, minute: int) -> _Known:
        known = self._known.get(key)
        is_young = known is None or known.usual is None or known.usual.season == "minutes"
        stamp = minute // (10 if is_young else 60) * (10 if is_young else 60)
        if known is not None and known.stamp == stamp:
            return known
        until = settled_minute(minute)
        began = [one.since // MINUTE for (other, _), one in self._open.items() if other == key]
        until = min([until, *began])
        known = _Known(
            stamp,
            usual_at(series, minute // 60, until),
            {},
            usual_ratio(series, until, spend_of, calls_of),
            usual_ratio(series, until, cache_reads_of, inputs_of),
            usual_rate(series, until, errors_of, trials_of),
            usual_rate(series, until, retries_of, calls_of),
        )
        self._known[key] = known
        return known

    def _narrowest(
        self, found: Sequence[tuple[SeriesKey, Finding]]
    ) -> list[tuple[SeriesKey, Finding]]:
        """Leave out what a narrower series explains, and what is not open yet is no more."""
        kept = []
        for key, finding in found:
            others = [
                (other, one)
                for other, one in found
                if other.tenant_id == key.tenant_id and is_of_one_incident(one.kind, finding.kind)
            ]
            is_explained = any(
                _is_closer(other, one, key, finding) or _is_part(finding, one)
                for other, one in others
            )
            if not is_explained or self._open_of(key, finding.kind):
                kept.append((key, finding))
        return kept

    def _open_of(self, key: SeriesKey, kind: Kind) -> Overrun | None:
        """The open overrun that a finding belongs to: a burn that was an outlier first is one."""
        kinds = [kind, *(one for one in Kind if is_of_one_incident(one, kind))]
        found = [self._open[key, one] for one in kinds if (key, one) in self._open]
        return found[0] if found else None

    def _episodes(self, found: Sequence[tuple[SeriesKey, Finding]], at: int) -> Said:
        said = Said([], [], [])
        for key, finding in found:
            known = self._open_of(key, finding.kind)
            if known is None:
                overrun = _begin(self._ids.next_id(), key, finding, at)
                said.opened.append(overrun)
            else:
                overrun = _renew(known, finding, at)
                said.lasting.append(overrun)
            self._open[key, overrun.kind] = overrun
        for place, overrun in list(self._open.items()):
            if at - overrun.last_at >= RECOVERED_AFTER:
                del self._open[place]
                self._known.pop(overrun.key, None)
                said.closed.append(_with(overrun, closed_at=at))
        return said


def is_of_one_incident(one: Kind, other: Kind) -> bool:
    """Burn and outlier are both of money; storms stand for themselves."""
    money = (Kind.BURN_RATE, Kind.OUTLIER)
    return one is other or (one in money and other in money)


def _is_closer(other: SeriesKey, one: Finding, key: SeriesKey, finding: Finding) -> bool:
    """Whether one finding is closer to the cause and explains most of the other."""
    is_most = _weight(one) >= _EXPLAINED_SHARE * _weight(finding)
    return is_most and _breadth(other, one) < _breadth(key, finding)


def _is_part(finding: Finding, whole: Finding) -> bool:
    """Whether a mild finding is a small part of a broader one: each user of a feature."""
    is_mild = finding.severity is not Severity.CRITICAL
    return is_mild and _weight(finding) * 2 <= _weight(whole)


def _breadth(key: SeriesKey, finding: Finding) -> tuple[int, int, str]:
    """How much usual usage a series has beside the excess: the less, the closer to the cause."""
    return finding.expected, _ORDER.index(key.dimension), key.value


def _weight(finding: Finding) -> float:
    is_storm = finding.kind in (Kind.ERROR_STORM, Kind.RETRY_STORM)
    return finding.observed if is_storm else finding.excess_units


def _begin(overrun_id: str, key: SeriesKey, finding: Finding, at: int) -> Overrun:
    return Overrun(
        overrun_id=overrun_id,
        tenant_id=key.tenant_id,
        kind=finding.kind,
        dimension=key.dimension,
        value=key.value,
        severity=finding.severity,
        detector=finding.detector,
        since=finding.since,
        seen_at=at,
        last_at=at,
        observed_units=finding.observed,
        expected_units=finding.expected,
        excess_units=finding.excess_units,
        detail=finding.detail,
    )


def _renew(known: Overrun, finding: Finding, at: int) -> Overrun:
    worst = max(known.severity, finding.severity, key=list(Severity).index)
    return _with(
        known,
        severity=worst,
        detector=finding.detector,
        last_at=at,
        observed_units=finding.observed,
        expected_units=finding.expected,
        excess_units=max(finding.excess_units, known.excess_units),
        detail=finding.detail,
    )


def _with(overrun: Overrun, **changes: object) -> Overrun:
    return msgspec.structs.replace(overrun, **changes)
