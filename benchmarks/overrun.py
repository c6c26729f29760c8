"""Back-test of overrun detection: real traces, injected incidents, delays and false alarms.

    python -m benchmarks.overrun            all of it, prints the rows of results/overrun.md
    python -m benchmarks.overrun quick      one seed, one clean day, prints only

Event time only: a delay runs from the first event of an incident to the moment (of events) at
which the watch says so, judged every 15 seconds. The product adds its own few seconds (the sink,
a step of the lane). A false alarm is any overrun opened in traffic without an incident.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from benchmarks.overrun_incidents import INCIDENTS, Both, Injected, Launch, RunawayLoop
from benchmarks.overrun_traffic import MONDAY, Incident, Traffic
from tallystick.clock import HOUR, MINUTE, SECOND, FixedClock
from tallystick.enforcement.overrun.model import Overrun, PlannedLaunch, SeriesKey
from tallystick.enforcement.overrun.series import Point
from tallystick.enforcement.overrun.watch import Watch
from tallystick.ids import Uuid7Source

WEEK = 168
HISTORY_HOURS = 3 * WEEK + 24
SEEDS = (1, 2, 3)
CLEAN_SEEDS = (1, 2)
STARTS = (10 * 60 + 23, 3 * 60 + 7)
"""Minutes of the Monday at which incidents begin: at full load, and in the calm of the night."""
SLOT_SECONDS = 15

Past = list[tuple[SeriesKey, int, Point]]


class Alarm(NamedTuple):
    """When an overrun was opened, and which."""

    at: int
    overrun: Overrun


def past(seed: int, until: int, hours: int = HISTORY_HOURS) -> Past:
    """The hours before `until` (hours since the Monday), without incidents."""
    return list(Traffic(seed).hours(until - hours, until))


def run(
    seed: int,
    history: Past,
    start: int,
    end: int,
    *,
    incident: Incident | None = None,
    launches: tuple[PlannedLaunch, ...] = (),
    slot_seconds: int = 60,
    warm_hours: int = 6,
) -> Iterator[Alarm]:
    """Overruns opened in the hours [start, end); minutes before them are taken in unjudged."""
    watch = Watch(Uuid7Source(FixedClock(MONDAY), random_bits=lambda bits: 0))
    watch.launches = launches
    watch.book.move(MONDAY + (start - warm_hours) * HOUR)
    watch.book.take_hours(
        (key, hour, point)
        for key, hour, point in history
        if hour < MONDAY // HOUR + start - warm_hours
    )
    traffic = Traffic(seed, incident)
    for hour in range(start - warm_hours, start):
        for at, changes in traffic.slots(hour, 60):
            watch.take(changes)
            watch.book.move(at)
    for hour in range(start, end):
        for at, changes in traffic.slots(hour, slot_seconds):
            changed = watch.take(changes) | {one.key for one in watch.open_overruns()}
            for overrun in watch.judge(at, changed).opened:
                yield Alarm(at, overrun)


def delay_minutes(
    injected: Injected, seed: int, history: Past, start_minute: int, *, warm_hours: int = 6
) -> tuple[float | None, Alarm | None]:
    """Minutes of event time until an incident that begins at a minute is noticed."""
    begins = start_minute * 60 + 20
    ends = begins + injected.lasts_minutes * 60
    incident = injected.make(begins, ends)
    alarms = run(
        seed,
        history,
        begins // 3600,
        -(-ends // 3600),
        incident=incident,
        slot_seconds=SLOT_SECONDS if injected.goal_minutes else 60,
        warm_hours=warm_hours,
    )
    for alarm in alarms:
        is_ours = (
            alarm.overrun.tenant_id == injected.tenant and alarm.overrun.kind in injected.kinds
        )
        if is_ours and alarm.at > MONDAY + begins * SECOND:
            return (alarm.at - MONDAY - begins * SECOND) / MINUTE, alarm
    return None, None


def planned(start_hour: int, end_hour: int, factor: str) -> PlannedLaunch:
    """A launch of the feature "chat" on file."""
    return PlannedLaunch(
        launch_id="launch",
        tenant_id="northwind",
        dimension="feature",
        value="chat",
        from_at=MONDAY + start_hour * HOUR,
        to_at=MONDAY + end_hour * HOUR,
        factor=Decimal(factor),
        reason="launch in Spain",
        created_at=MONDAY,
        created_by="admin",
    )


def launch_alarms(seed: int, history: Past, *, is_on_file: bool, has_runaway: bool) -> list[Alarm]:
    """Overruns during a launch of three times the usual, 10:00 to 13:00."""
    incident: Incident = Launch(10 * 3600, 13 * 3600)
    if has_runaway:
        incident = Both(incident, RunawayLoop(11 * 3600 + 20, 11 * 3600 + 1800))
    launches = (planned(10, 13, "3.2"),) if is_on_file else ()
    return list(run(seed, history, 10, 14, incident=incident, launches=launches))


def clean_alarms(seed: int, history: Past, start: int, hours: int) -> list[Alarm]:
    """Overruns in traffic without incidents."""
    return list(run(seed, history, start, start + hours))


def report(seeds: tuple[int, ...], clean_seeds: tuple[int, ...], hours: int) -> Iterator[str]:
    """Every figure, as lines of Markdown tables."""
    histories = {seed: past(seed, 24) for seed in seeds}
    yield "| incident | noticed | delay, median (least to most) | goal | noticed as |"
    yield "|" + " --- |" * 5
    for injected in INCIDENTS:
        starts = [(seed, start) for seed in seeds for start in STARTS]
        found = [
            delay_minutes(injected, seed, histories[seed], start)
            for seed, start in (starts if injected.goal_minutes else starts[:2])
        ]
        yield _incident_row(injected, found)
    yield from ("", "| three-fold launch of a feature, 3 hours | overruns opened, by seed |")
    yield "| --- | --- |"
    for name, is_on_file, has_runaway in (
        ("not on file", False, False),
        ("on file", True, False),
        ("on file, and a key runs away meanwhile", True, True),
    ):
        counts = [
            launch_alarms(seed, histories[seed], is_on_file=is_on_file, has_runaway=has_runaway)
            for seed in seeds
        ]
        yield f"| {name} | {'; '.join(_names(alarms) for alarms in counts)} |"
    yield from ("", "| traffic without incidents | false alarms |", "| --- | --- |")
    for seed in clean_seeds:
        alarms = clean_alarms(seed, past(seed, 0, HISTORY_HOURS - 24), 0, hours)
        yield f"| seed {seed}, {hours} hours | {_names(alarms)} |"


def _incident_row(injected: Injected, found: list[tuple[float | None, Alarm | None]]) -> str:
    delays = [delay for delay, _ in found if delay is not None]
    seen = sorted(
        {
            f"{alarm.overrun.detector} of {alarm.overrun.dimension}"
            for _, alarm in found
            if alarm is not None
        }
    )
    shown = (
        f"{statistics.median(delays):.2f} ({min(delays):.2f} to {max(delays):.2f}) min"
        if delays
        else "never"
    )
    goal = f"{injected.goal_minutes:g} min" if injected.goal_minutes else ""
    noticed = f"{len(delays)} of {len(found)}"
    return f"| {injected.name} | {noticed} | {shown} | {goal} | {', '.join(seen)} |"


def _names(alarms: list[Alarm]) -> str:
    names = [
        f"{alarm.overrun.detector} of {alarm.overrun.dimension}={alarm.overrun.value}"
        for alarm in alarms
    ]
    return f"{len(alarms)}: {', '.join(names[:4])}" if alarms else "0"


def main() -> None:
    is_quick = "quick" in sys.argv
    for line in report((1,), (1,), 24) if is_quick else report(SEEDS, CLEAN_SEEDS, WEEK):
        print(line, flush=True)


if __name__ == "__main__":
    main()
