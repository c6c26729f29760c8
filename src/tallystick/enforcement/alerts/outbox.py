"""The outbox: what is to be said, decided once, and every try to say it.

`announce` decides and enqueues in one transaction under the alert's lock, so each step of an
alert is said once to each channel. Sending is outside: whoever dies between sending and
`record` sends again, with the same delivery id, by which receivers know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from tallystick.clock import Clock, format_time
from tallystick.enforcement.alerts.model import AlertState, Message, Plan, Result, Route, Step
from tallystick.enforcement.alerts.rules import pick_steps, plan_announcement, plan_retry
from tallystick.ids import IdSource
from tallystick.plumbing.postgres import transaction
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.alerts", "outbox.sql").items()
}
_ALERTS_PER_LOOK = 50
_PER_CHANNEL = 2
_ERROR_MAX = 200
_Connection = psycopg.Connection[Any]


class Due(NamedTuple):
    """A delivery that is to be tried now, with its channel as it is stored: sealed."""

    delivery_id: str
    channel_id: str
    kind: str
    message: Message
    attempt: int
    """The number of the try, from 1."""
    is_enabled: bool
    target: bytes
    secret: bytes | None
    secret_before: bytes | None
    """None also when its time is over."""


class Tried(NamedTuple):
    """One try of a delivery."""

    due: Due
    started_at: int
    """Micros."""
    latency_ms: int
    result: Result


class Outbox:
    """Announcements and their deliveries."""

    def __init__(
        self, pool: ConnectionPool, clock: Clock, ids: IdSource, *, public_url: str = ""
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._ids = ids
        self._public_url = public_url.rstrip("/")

    def announce(self) -> int:
        """Decide about the alerts that are due; return how many were looked at."""
        now = self._clock.now()
        with transaction(self._pool) as connection:
            arguments = {"now": now, "limit": _ALERTS_PER_LOOK}
            alerts = _rows(connection, "lock_due_alerts", arguments)
            for alert in alerts:
                self._announce_one(connection, alert, now)
        return len(alerts)

    def _announce_one(self, connection: _Connection, alert: Mapping[str, Any], now: int) -> None:
        tenant = {"tenant_id": alert["tenant_id"]}
        enabled = [row["channel_id"] for row in _rows(connection, "load_tenant_channels", tenant)]
        routes = [_route(row) for row in _rows(connection, "load_tenant_routes", tenant)]
        state = _state(alert)
        plan = plan_announcement(state, pick_steps(state, routes, tuple(enabled)), now)
        wanted = set(plan.channels)
        if plan.reason == "recovered":
            told = _rows(connection, "load_told_channels", {"alert_id": alert["alert_id"]})
            wanted = {row["channel_id"] for row in told}
        for channel_id in (one for one in enabled if one in wanted):
            self._enqueue(connection, alert, plan, channel_id, now)
        connection.execute(
            _SQL["note_look"],
            {
                "alert_id": alert["alert_id"],
                "due_at": plan.due_at,
                "now": now,
                "step": plan.step,
                "reason": plan.reason,
            },
        )

    def _enqueue(
        self,
        connection: _Connection,
        alert: Mapping[str, Any],
        plan: Plan,
        channel_id: str,
        now: int,
    ) -> None:
        message = message_of(alert, plan.reason, now, self._public_url)
        connection.execute(
            _SQL["enqueue"],
            {
                "delivery_id": f"msg_{self._ids.next_id().replace('-', '')}",
                "tenant_id": alert["tenant_id"],
                "alert_id": alert["alert_id"],
                "announcement": alert["announcements"],
                "channel_id": channel_id,
                "step": plan.step,
                "reason": plan.reason,
                "message": Jsonb(msgspec.structs.asdict(message)),
                "now": now,
            },
        )

    def load_due(self, limit: int) -> list[Due]:
        """Deliveries that are to be tried now."""
        now = self._clock.now()
        arguments = {"now": now, "limit": limit, "per_channel": _PER_CHANNEL}
        with transaction(self._pool) as connection:
            rows = _rows(connection, "load_due_deliveries", arguments)
        return [_due_of(row, now) for row in rows]

    def record(self, tried: Tried, chance: float) -> None:
        """Keep a try and what follows: sent, failed for good, or when to try again."""
        due, result = tried.due, tried.result
        pause = (
            None if result.is_final else plan_retry(due.attempt, result.retry_after_seconds, chance)
        )
        outcome = "sent" if not result.error else "failed" if pause is None else "retry"
        arguments = {
            "delivery_id": due.delivery_id,
            "attempt": due.attempt,
            "started_at": tried.started_at,
            "latency_ms": tried.latency_ms,
            "outcome": outcome,
            "answer": result.answer,
            "error": result.error[:_ERROR_MAX],
            "status": "pending" if outcome == "retry" else outcome,
            "due_at": self._clock.now() + int((pause or 0) * 1_000_000),
        }
        with transaction(self._pool) as connection:
            connection.execute(_SQL["record_attempt"], arguments)
            connection.execute(_SQL["note_attempt"], arguments)
            if result.is_final and result.answer == 410:
                reason = {"channel_id": due.channel_id, "reason": "the receiver answered 410 Gone"}
                connection.execute(_SQL["disable_channel"], reason)


def message_of(alert: Mapping[str, Any], reason: str, now: int, public_url: str) -> Message:
    """What is said of an alert now."""
    return Message(
        alert_id=alert["alert_id"],
        tenant_id=alert["tenant_id"],
        reason=reason,
        severity=alert["severity"],
        kind=alert["kind"],
        who=alert["who"],
        what=alert["what"],
        how_much=alert["how_much"],
        since=format_time(alert["since"]),
        said_at=format_time(now),
        next_step=alert["next_step"],
        how_to_stop=alert["how_to_stop"],
        link=f"{public_url}/alerts/{alert['alert_id']}",
    )


def _rows(
    connection: _Connection, statement: str, arguments: Mapping[str, Any]
) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_SQL[statement], arguments).fetchall()


def _route(row: Mapping[str, Any]) -> Route:
    steps = msgspec.convert(row["steps"], tuple[Step, ...])
    return Route(tuple(row["severities"]), tuple(row["kinds"]), row["scope"], steps)


def _state(alert: Mapping[str, Any]) -> AlertState:
    return AlertState(
        kind=alert["kind"],
        who=alert["who"],
        severity=alert["severity"],
        is_open=alert["status"] == "open",
        noticed_at=alert["noticed_at"],
        step=alert["step"],
        announced_severity=alert["announced_severity"],
        is_acknowledged=alert["acknowledged_at"] is not None,
        muted_until=alert["muted_until"],
    )


def _due_of(row: Mapping[str, Any], now: int) -> Due:
    return Due(
        delivery_id=row["delivery_id"],
        channel_id=row["channel_id"],
        kind=row["kind"],
        message=msgspec.convert(row["message"], Message),
        attempt=row["attempts"] + 1,
        is_enabled=row["is_enabled"],
        target=row["target"],
        secret=row["secret"],
        secret_before=row["secret_before"] if row["secret_before_until"] > now else None,
    )
