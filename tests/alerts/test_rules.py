"""When an alert is announced, and how often a delivery is tried: for any history."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.clock import SECOND
from tallystick.enforcement.alerts.messages import plain, slack_text
from tallystick.enforcement.alerts.model import SEVERITIES, AlertState, Plan, Route, Step
from tallystick.enforcement.alerts.rules import (
    ATTEMPTS_MAX,
    check_address,
    check_steps,
    pick_steps,
    plan_announcement,
    plan_retry,
)
from tallystick.errors import InvalidInput

STEPS = [Step(0, ("a",)), Step(60, ("b",)), Step(300, ("c",))]


def _state(**changes: object) -> AlertState:
    base: dict[str, object] = {
        "kind": "budget",
        "who": "team=search, key=k1",
        "severity": "warning",
        "is_open": True,
        "noticed_at": None,
        "step": -1,
        "announced_severity": "",
        "is_acknowledged": False,
        "muted_until": 0,
    }
    return AlertState(**{**base, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("route", "matches"),
    [
        (Route((), (), "", ()), True),
        (Route(("critical",), (), "", ()), False),
        (Route((), ("burn_rate",), "", ()), False),
        (Route(("warning",), ("budget",), "key=k1, team=search", ()), True),
        (Route((), (), "team=sear", ()), False),
    ],
)
def test_a_route_matches_by_severity_kind_and_whole_parts_of_the_scope(
    route: Route, matches: bool
) -> None:
    found = pick_steps(_state(), [route], ("everyone",))
    assert found == ([] if matches else [Step(0, ("everyone",))])


def _walk(looks: list[tuple[int, str, bool]]) -> list[Plan]:
    """What is said when delivery looks at these seconds, at these severities, acknowledged."""
    state, said, worst = _state(), [], 0
    for now, severity, is_acknowledged in looks:
        worst = max(worst, SEVERITIES.index(severity))
        state = _state(
            noticed_at=state.noticed_at,
            step=state.step,
            announced_severity=state.announced_severity,
            severity=SEVERITIES[worst],
            is_acknowledged=is_acknowledged,
        )
        plan = plan_announcement(state, STEPS, now * SECOND)
        announced = state.severity if plan.reason else state.announced_severity
        noticed = now * SECOND if state.noticed_at is None else state.noticed_at
        state = _state(noticed_at=noticed, step=plan.step, announced_severity=announced)
        if plan.reason:
            said.append(plan)
    return said


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 900), st.sampled_from(SEVERITIES), st.booleans()), max_size=30
    )
)
def test_an_alert_is_opened_once_and_never_goes_back_a_step(
    looks: list[tuple[int, str, bool]],
) -> None:
    said = _walk(sorted(looks, key=lambda look: look[0]))
    steps = [plan.step for plan in said]
    assert steps == sorted(steps)
    assert [plan.reason for plan in said].count("opened") <= 1
    assert sum(plan.reason == "worse" for plan in said) <= 2
    assert len([plan for plan in said if plan.reason == "lasting"]) <= 2


def test_the_next_look_is_when_the_next_step_is_due() -> None:
    opened = plan_announcement(_state(), STEPS, 7 * SECOND)
    assert (opened.reason, opened.channels, opened.due_at) == ("opened", ("a",), 67 * SECOND)
    waiting = _state(noticed_at=7 * SECOND, step=0, announced_severity="warning")
    assert plan_announcement(waiting, STEPS, 66 * SECOND).due_at == 67 * SECOND


@given(st.integers(1, ATTEMPTS_MAX + 3), st.none() | st.integers(0, 10**6), st.floats(0, 0.999))
def test_pauses_grow_are_bounded_and_keep_to_what_the_receiver_asks(
    attempt: int, asked: int | None, chance: float
) -> None:
    pause = plan_retry(attempt, asked, chance)
    if attempt >= ATTEMPTS_MAX:
        assert pause is None
    else:
        assert pause is not None
        assert 2.5 <= pause <= 5400
        assert pause >= min(asked or 0, 3600)


@given(st.text(max_size=300))
def test_no_text_breaks_a_line_or_makes_a_mention(text: str) -> None:
    assert "\n" not in plain(text) and "\r" not in plain(text) and len(plain(text)) <= 500
    assert "<" not in slack_text(text) and ">" not in slack_text(text)


@pytest.mark.parametrize(
    "address", ["", "a", "a@b\nBcc: c@d", "a@b, c@d", "<a@b>", "a b@c", '"x"@y', "a@b..c"]
)
def test_only_one_plain_mail_address_is_taken(address: str) -> None:
    with pytest.raises(InvalidInput):
        check_address(address)


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [Step(0, ())],
        [Step(0, ("unknown",))],
        [Step(5, ("a",)), Step(5, ("b",))],
        [Step(-1, ("a",))],
    ],
)
def test_steps_that_cannot_be_taken_are_refused(steps: list[Step]) -> None:
    with pytest.raises(InvalidInput):
        check_steps(steps, {"a", "b"})
