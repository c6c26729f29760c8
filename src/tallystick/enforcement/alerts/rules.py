"""What to say of an alert, to whom and when: pure, with the time passed in.

An alert takes the steps of its route one after the other while it lasts; a higher severity
takes the next step at once. Who acknowledged it stops the steps until it gets worse. Who was
told is told of the end, once. Times count from when delivery first noticed the alert, so a
replay of old events does not run through every step at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tallystick.clock import SECOND
from tallystick.enforcement.alerts.model import SEVERITIES, AlertState, Plan, Route, Step
from tallystick.errors import InvalidInput

ATTEMPTS_MAX = 8
_FIRST_PAUSE_SECONDS = 5
_PAUSE_SECONDS_MAX = 3600
STEPS_MAX = 10
CHANNELS_PER_STEP_MAX = 20
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,190}", re.ASCII)


def pick_steps(alert: AlertState, routes: Sequence[Route], everyone: tuple[str, ...]) -> list[Step]:
    """The steps of the first route that matches; without one, everyone at once."""
    for route in routes:
        if _matches(alert, route):
            return sorted(route.steps, key=lambda step: step.after_seconds)
    return [Step(0, everyone)]


def _matches(alert: AlertState, route: Route) -> bool:
    return (
        (not route.severities or alert.severity in route.severities)
        and (not route.kinds or alert.kind in route.kinds)
        and _parts(route.scope) <= _parts(alert.who)
    )


def _parts(scope: str) -> set[str]:
    return {part.strip() for part in scope.split(",") if part.strip()}


def plan_announcement(alert: AlertState, steps: Sequence[Step], now: int) -> Plan:
    """Decide what to say now, and when to look again."""
    if not alert.is_open:
        was_told = alert.step >= 0
        return Plan("recovered" if was_told else "", alert.step, (), None)
    if alert.muted_until > now:
        return Plan("", alert.step, (), alert.muted_until)
    last = len(steps) - 1
    began = now if alert.noticed_at is None else alert.noticed_at
    if alert.step >= 0 and _rank(alert.severity) > _rank(alert.announced_severity):
        step = min(alert.step + 1, last)
        told = [channel for one in steps[: step + 1] for channel in one.channels]
        return Plan("worse", step, tuple(dict.fromkeys(told)), _due(began, steps, step + 1))
    if alert.is_acknowledged or alert.step >= last:
        return Plan("", alert.step, (), None)
    step = alert.step + 1
    due_at = _due(began, steps, step)
    if due_at is not None and due_at > now:
        return Plan("", alert.step, (), due_at)
    reason = "opened" if step == 0 else "lasting"
    return Plan(reason, step, steps[step].channels, _due(began, steps, step + 1))


def _due(began: int, steps: Sequence[Step], step: int) -> int | None:
    return began + steps[step].after_seconds * SECOND if step < len(steps) else None


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1


def plan_retry(attempt: int, retry_after_seconds: int | None, chance: float) -> float | None:
    """Seconds until the next try after try number `attempt`; None: that was the last.

    Exponential with jitter from `chance` in [0, 1); what the receiver asks for is the least.

    >>> plan_retry(1, None, 0.5), plan_retry(2, None, 0.5), plan_retry(1, 60, 0.0)
    (5.0, 20.0, 60)
    """
    if attempt >= ATTEMPTS_MAX:
        return None
    grown: int = _FIRST_PAUSE_SECONDS * 4 ** (attempt - 1)
    pause = min(grown, _PAUSE_SECONDS_MAX) * (0.5 + chance)
    return max(pause, min(retry_after_seconds or 0, _PAUSE_SECONDS_MAX))


def read_retry_after(text: str) -> int | None:
    """Seconds of a Retry-After header; a date or nonsense is None.

    >>> read_retry_after("120"), read_retry_after("soon")
    (120, None)
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else None


def check_steps(steps: Sequence[Step], known: set[str]) -> None:
    """Raise InvalidInput unless the steps can be taken: ordered times, channels that exist."""
    times = [step.after_seconds for step in steps]
    if not 1 <= len(steps) <= STEPS_MAX:
        raise InvalidInput(f"give 1 to {STEPS_MAX} steps", field="steps")
    if times != sorted(set(times)) or times[0] < 0 or times[-1] > 30 * 24 * 3600:
        raise InvalidInput("after_seconds must grow from step to step, to 30 days", field="steps")
    for step in steps:
        if not 1 <= len(step.channels) <= CHANNELS_PER_STEP_MAX:
            raise InvalidInput(f"a step has 1 to {CHANNELS_PER_STEP_MAX} channels", field="steps")
        if unknown := set(step.channels) - known:
            raise InvalidInput(f"there is no channel {min(unknown)[:64]}", field="steps")


def check_address(address: str) -> None:
    """Raise InvalidInput unless the text is one plain mail address, fit for a header."""
    if not _ADDRESS.fullmatch(address) or ".." in address:
        raise InvalidInput("give one plain mail address", code="bad_address", field="target")
