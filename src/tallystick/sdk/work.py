"""Work as events: pure rules from "it began" and "it ended" to what is recorded.

A `Span` is the state machine of one run, attempt or tool call: `start` gives the event of
its beginning, `finish` that of its end, each once. Time and ids are given; nothing here
does I/O, so the same rules serve synchronous code, asynchronous code and generators.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tallystick.clock import format_time
from tallystick.invariant import check
from tallystick.sdk.context import Place, error_code_of

Kind = Literal["run", "attempt", "tool"]
Event = dict[str, Any]

FIELD_OF_DIMENSION = {"user": "user_id", "project": "project_id", "org": "tallystick_org"}
"""Dimensions whose field or attribute in an event has another name; any other has its own."""

DIMENSIONS = frozenset(
    [
        "workflow",
        "agent",
        "user_id",
        "project_id",
        "team",
        "product",
        "feature",
        "customer_tier",
        "environment",
    ]
)

_STARTED = {"run": "run_started", "attempt": "attempt_started", "tool": "tool_call_started"}
_ENDED = {"run": "run_completed", "attempt": "attempt_finished", "tool": "tool_call_finished"}


def event_at(
    place: Place, event_type: str, event_id: str, occurred_at: int, fields: Mapping[str, Any]
) -> Event:
    """One event of the work at `place`; empty fields are left out."""
    event: Event = {
        "event_id": event_id,
        "event_type": event_type,
        "event_time": format_time(occurred_at),
        "attempt": place.attempt,
    }
    others: dict[str, str] = {}
    for name, value in place.attribution.items():
        field = FIELD_OF_DIMENSION.get(name, name)
        (event if field in DIMENSIONS else others)[field] = value
    if place.run is not None:
        event["run_id"] = place.run.run_id
        event["root_run_id"] = place.run.root_run_id
        if place.run.parent_run_id:
            event["parent_run_id"] = place.run.parent_run_id
    if others:
        event["attrs"] = others
    for name, value in fields.items():
        if value not in ("", None):
            event[name] = value
    return event


class Span:
    """One run, attempt or tool call under way."""

    def __init__(self, kind: Kind, place: Place, fields: Mapping[str, Any]) -> None:
        self.kind = kind
        self.place = place
        self._fields = dict(fields)
        self._state = "new"

    def start(self, event_id: str, now: int) -> Event:
        """The event of its beginning; `now` in micros."""
        check(self._state == "new", "SDK-01", "a span starts once")
        self._state = "started"
        return event_at(self.place, _STARTED[self.kind], event_id, now, self._fields)

    def finish(
        self, event_id: str, now: int, latency_ms: float, error: BaseException | None
    ) -> Event:
        """The event of its end, with how long it took and the class of what was raised."""
        check(self._state == "started", "SDK-02", "a span ends once, after its start")
        self._state = "ended"
        event_type = "run_failed" if self.kind == "run" and error else _ENDED[self.kind]
        ending = {"latency_ms": latency_ms, "error_code": error_code_of(error)}
        return event_at(self.place, event_type, event_id, now, {**self._fields, **ending})
