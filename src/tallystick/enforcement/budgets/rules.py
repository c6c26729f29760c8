"""Rules of budgets: windows of time, capacity, carry-over, thresholds, names. Pure.

Windows are of a time zone's calendar: a day is from midnight to midnight there, 23 or 25 hours
long when the clocks change. Half-open: an instant is in exactly one window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from tallystick.clock import HOUR, SECOND, from_datetime, to_datetime
from tallystick.enforcement.budgets.model import (
    ACTIONS,
    ASSETS,
    DIMENSIONS,
    EACH,
    PERIODS,
    SLICES,
    BudgetTerms,
    Threshold,
    Window,
)
from tallystick.errors import Conflict, InvalidInput

_AMOUNT_MAX = 10**16
_ROLLING_HOURS_MAX = 24 * 366
_THRESHOLDS_MAX = 10
_ID_LENGTH_MAX = 128


def window_at(terms: BudgetTerms, now: int) -> Window:
    """The window that an instant is in."""
    if terms.window == "rolling":
        return Window(0, None)
    return _calendar_window(terms.window, terms.anchor_day, terms.time_zone, now)


def window_before(terms: BudgetTerms, window: Window) -> Window:
    """The window that ended when this one began."""
    return window_at(terms, window.start_at - 1)


def _calendar_window(period: str, anchor_day: int, time_zone: str, now: int) -> Window:
    zone = _zone(time_zone)
    today = to_datetime(now).astimezone(zone).date()
    begin = _first_day(period, anchor_day, today)
    start_at = _midnight(begin, zone)
    end_at = _midnight(_next_first_day(period, anchor_day, begin), zone)
    if start_at <= now < end_at:
        return Window(start_at, end_at)
    # the clocks were put back over midnight: this hour of the old day comes after the new began
    begin = _next_first_day(period, anchor_day, begin)
    return Window(end_at, _midnight(_next_first_day(period, anchor_day, begin), zone))


@lru_cache(maxsize=1000)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _midnight(day: date, zone: ZoneInfo) -> int:
    """The first instant of a day there, also when clocks skip its midnight."""
    return from_datetime(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC))


def _first_day(period: str, anchor_day: int, today: date) -> date:
    if period == "day":
        return today
    if period == "week":
        return today - timedelta(days=(today.isoweekday() - anchor_day) % 7)
    here = _clipped(today.year, today.month, anchor_day)
    if today >= here:
        return here
    before = today.replace(day=1) - timedelta(days=1)
    return _clipped(before.year, before.month, anchor_day)


def _next_first_day(period: str, anchor_day: int, begin: date) -> date:
    if period != "month":
        return begin + timedelta(days=1 if period == "day" else 7)
    after = begin.replace(day=1) + timedelta(days=32)
    return _clipped(after.year, after.month, anchor_day)


def _clipped(year: int, month: int, day: int) -> date:
    after = date(year, month, 1) + timedelta(days=32)
    last = after.replace(day=1) - timedelta(days=1)
    return last.replace(day=min(day, last.day))


def slice_micros(terms: BudgetTerms) -> int | None:
    """How long a slice of a rolling window is; None of a calendar window."""
    return terms.rolling_hours * HOUR // SLICES if terms.window == "rolling" else None


def plan_carry(terms: BudgetTerms, counted: int) -> int:
    """What is left over of a window in which `counted` was used or is held still."""
    return min(terms.carry_over_max, max(terms.amount - counted, 0))


def capacity_of(terms: BudgetTerms, carried: int) -> int:
    """What may be used in a window: a threshold that blocks is below the amount or above."""
    blocks = [one.at for one in terms.thresholds if one.action == "block"]
    return share_of(terms.amount + carried, min(blocks) if blocks else Decimal(1))


def share_of(units: int, share: Decimal) -> int:
    """A share of units, rounded down."""
    return int((share * units).to_integral_value(ROUND_FLOOR))


def limit_id_of(
    tenant_id: str, budget_id: str, terms: BudgetTerms, each: Sequence[str], window: Window
) -> str:
    """The name of a window in the ledger; at most 256 characters."""
    begin = "rolling" if window.end_at is None else str(window.start_at // SECOND)
    name = f"budget:{tenant_id}/{budget_id}/{begin}"
    return f"{name}/{_digest(tuple(each))}" if each else name


@lru_cache(maxsize=100_000)
def _digest(each: tuple[str, ...]) -> str:
    return "e" + hashlib.sha256(msgspec.json.encode(each)).hexdigest()[:24]


def budget_id_of(limit_id: str) -> str:
    """The budget that a window's name is of; "" when it is not a budget's.

    >>> budget_id_of("budget:acme/search-monthly/1790000000")
    'search-monthly'
    """
    if not limit_id.startswith("budget:"):
        return ""
    has_each = limit_id.rpartition("/")[2].startswith("e")
    parts = limit_id.rsplit("/", 3 if has_each else 2)
    return parts[1]


def each_of(scope: Mapping[str, str]) -> tuple[str, ...]:
    """The dimensions of a scope that have a window for each value, in order of name."""
    return tuple(sorted(name for name, value in scope.items() if value == EACH))


def check_terms(terms: BudgetTerms) -> None:
    """Refuse terms that make no sense; InvalidInput names the field and the mend."""
    _check_scope(terms.scope)
    _check_choice(terms.asset, tuple(ASSETS), "asset")
    _check_choice(terms.window, PERIODS, "window")
    if not 0 <= terms.amount <= _AMOUNT_MAX:
        raise InvalidInput("amount must be from 0 to ten million dollars", field="amount")
    if not 0 <= terms.carry_over_max <= _AMOUNT_MAX:
        raise InvalidInput("carry_over_max must be at least 0", field="carry_over_max")
    if len(terms.name) > _ID_LENGTH_MAX or "\0" in terms.name:
        raise InvalidInput(f"name may have {_ID_LENGTH_MAX} characters", field="name")
    _check_window(terms)
    _check_thresholds(terms)


def _check_choice(value: str, choices: Sequence[str], field: str) -> None:
    if value not in choices:
        raise InvalidInput(f"{field} must be one of {', '.join(choices)}", field=field)


def _check_scope(scope: Mapping[str, str]) -> None:
    for name, value in scope.items():
        _check_choice(name, DIMENSIONS, "scope")
        if not 0 < len(value) <= _ID_LENGTH_MAX or "\0" in value:
            raise InvalidInput(f"scope.{name} must have 1 to 128 characters", field="scope")


def _check_window(terms: BudgetTerms) -> None:
    if (terms.window == "rolling") != bool(terms.rolling_hours):
        raise InvalidInput("rolling_hours goes with window rolling", field="rolling_hours")
    if terms.window == "rolling":
        if not 0 < terms.rolling_hours <= _ROLLING_HOURS_MAX:
            raise InvalidInput("rolling_hours must be from 1 to 8784", field="rolling_hours")
        if terms.carry_over_max:
            raise InvalidInput("a rolling window has nothing to carry", field="carry_over_max")
    if not 1 <= terms.anchor_day <= (7 if terms.window == "week" else 31):
        raise InvalidInput(
            "anchor_day must be 1 to 7 of a week, 1 to 31 of a month", field="anchor_day"
        )
    try:
        _zone(terms.time_zone)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInput("time_zone must be an IANA name", field="time_zone") from error


def _check_thresholds(terms: BudgetTerms) -> None:
    if len(terms.thresholds) > _THRESHOLDS_MAX:
        raise InvalidInput(f"at most {_THRESHOLDS_MAX} thresholds", field="thresholds")
    if len({(one.at, one.action) for one in terms.thresholds}) != len(terms.thresholds):
        raise InvalidInput("a threshold is given twice", field="thresholds")
    for one in terms.thresholds:
        _check_choice(one.action, ACTIONS, "thresholds")
        if not one.at.is_finite() or not 0 < one.at <= 10 or one.at != round(one.at, 4):
            raise InvalidInput(
                "thresholds.at is a share such as 0.8, to 4 decimals", field="thresholds"
            )
        if one.action in ("block", "throttle") and one.at > 1:
            raise InvalidInput(f"{one.action} goes at 1 at most", field="thresholds")
        if one.action == "throttle" and terms.window == "rolling":
            raise InvalidInput(
                "a rolling window frees itself; use downgrade or block", field="thresholds"
            )


def check_same_shape(before: BudgetTerms, after: BudgetTerms) -> None:
    """Refuse to turn a budget into another: what was counted would mean something else."""
    for field in ("scope", "asset", "window", "rolling_hours", "anchor_day", "time_zone"):
        if getattr(before, field) != getattr(after, field):
            raise Conflict(
                f"{field} of a budget never changes; make another budget",
                code="budget_shape_fixed",
                field=field,
            )


def crossed(terms: BudgetTerms, carried: int, counted: int) -> list[Threshold]:
    """Thresholds that what was used and is held has reached, the highest last."""
    total = terms.amount + carried
    found = [one for one in terms.thresholds if counted >= share_of(total, one.at) and counted]
    return sorted(found, key=lambda one: one.at)


def throttle_seconds(
    terms: BudgetTerms, window: Window, carried: int, counted: int, units: int, now: int
) -> int:
    """How long work must wait for its share of what is left; 0: it may go on.

    Above its throttle threshold a budget is given out in proportion to time: when a fraction f
    of the window is over, at + (1 - at) * f of the amount may be used. Work waits until this
    line has reached what is counted, with its own units. So the rest lasts to the end of the
    window, whoever asks, and the wait is known.
    """
    throttles = [one.at for one in terms.thresholds if one.action == "throttle"]
    if not throttles or window.end_at is None:
        return 0
    at, total = min(throttles), terms.amount + carried
    above = counted + units - share_of(total, at)
    if above <= 0:
        return 0
    rest = total - share_of(total, at)
    if above > rest:
        above = rest  # no wait makes it fit: the capacity decides, not the throttle
    length = window.end_at - window.start_at
    due_at = window.start_at + -(-length * above // rest if rest else 0)
    return max(-((now - due_at) // SECOND), 0)
