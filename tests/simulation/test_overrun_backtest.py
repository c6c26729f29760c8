"""A small piece of the back-test: real traces, injected incidents, one seed, event time only."""

from __future__ import annotations

import pytest
from benchmarks.overrun import Past, delay_minutes, past, planned, run
from benchmarks.overrun_incidents import INCIDENTS, Both, Injected, Launch, RunawayLoop
from benchmarks.overrun_traffic import MONDAY

from tallystick.clock import HOUR

SEED = 1
HISTORY_HOURS = 4 * 24
WARM_HOURS = 2
FAST = [one for one in INCIDENTS if one.goal_minutes == 2]


@pytest.fixture(scope="module")
def history() -> Past:
    return past(SEED, 12, HISTORY_HOURS)


@pytest.mark.parametrize("injected", FAST, ids=lambda one: one.name)
def test_a_fast_incident_is_noticed_within_two_minutes(injected: Injected, history: Past) -> None:
    start_minute = 10 * 60 + 23
    delay, alarm = delay_minutes(injected, SEED, history, start_minute, warm_hours=WARM_HOURS)
    assert alarm is not None and delay is not None
    assert delay < 2


def test_clean_traffic_raises_no_alarm(history: Past) -> None:
    assert list(run(SEED, history, 9, 11, warm_hours=WARM_HOURS)) == []


def test_a_launch_on_file_is_no_alarm_and_a_runaway_key_in_it_is(history: Past) -> None:
    incident = Both(Launch(10 * 3600, 12 * 3600), RunawayLoop(11 * 3600, 11 * 3600 + 1800))
    plan = planned(10, 12, "3.2")
    alarms = list(
        run(SEED, history, 10, 12, incident=incident, launches=(plan,), warm_hours=WARM_HOURS)
    )
    assert [one for one in alarms if one.at <= MONDAY + 11 * HOUR] == []
    assert any(one.overrun.value in ("northwind-key-3", "northwind-user-7") for one in alarms)
