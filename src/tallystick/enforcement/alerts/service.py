"""Alerts as people ask for them: lists, one alert, acknowledge, mute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg_pool import ConnectionPool

from tallystick.bounds import REASON_LENGTH_MAX
from tallystick.clock import DAY, SECOND, Clock, format_time
from tallystick.enforcement.alerts.model import SEVERITIES
from tallystick.enforcement.alerts.store import AlertRows, AlertTransaction, Row
from tallystick.errors import Conflict, InvalidInput

MUTE_SECONDS_MAX = 90 * DAY // SECOND
_PAGE_MAX = 500


class Alerts:
    """Reads alerts and keeps what people did about them; a tenant of "" is the operator."""

    def __init__(self, pool: ConnectionPool, clock: Clock) -> None:
        self._rows = AlertRows(pool)
        self._clock = clock

    def page(
        self, tenant_id: str, filters: Mapping[str, str], *, cursor: str = "", limit: int = 50
    ) -> dict[str, Any]:
        """One page, newest first; `filters` of status, kind, severity."""
        _check_filters(filters)
        before_at, before_id = _read_cursor(cursor)
        limit = min(limit, _PAGE_MAX)
        rows = self._rows.rows(
            "page_alerts",
            tenant_id=tenant_id,
            status=filters.get("status", ""),
            kind=filters.get("kind", ""),
            severity=filters.get("severity", ""),
            before_at=before_at,
            before_id=before_id,
            limit=limit + 1,
        )
        shown, now = rows[:limit], self._clock.now()
        last = shown[-1] if len(rows) > limit else None
        next_cursor = f"{last['opened_at']}.{last['alert_id']}" if last else None
        return {"alerts": [_alert(row, now) for row in shown], "next_cursor": next_cursor}

    def get(self, tenant_id: str, alert_id: str) -> dict[str, Any]:
        """One alert and what was done about it; NotFound."""
        with self._rows.writing() as open_:
            row = open_.one("load_alert", "alert", tenant_id=tenant_id, alert_id=alert_id)
            actions = open_.rows("load_actions", alert_id=alert_id)
        shown = [
            {**one, "acted_at": format_time(one["acted_at"]), "until_at": _time(one["until_at"])}
            for one in actions
        ]
        return {**_alert(row, self._clock.now()), "actions": shown}

    def deliveries(self, tenant_id: str, alert_id: str) -> dict[str, Any]:
        """Who was told what and when, with every try; NotFound."""
        with self._rows.writing() as open_:
            open_.one("load_alert", "alert", tenant_id=tenant_id, alert_id=alert_id)
            return {"alert_id": alert_id, "deliveries": deliveries_of(open_, alert_id=alert_id)}

    def acknowledge(self, tenant_id: str, alert_id: str, *, reason: str, by: str) -> dict[str, Any]:
        """Say that someone takes care; again changes nothing; Conflict when it is over."""
        check_reason(reason, is_required=False)
        now = self._clock.now()
        with self._rows.writing() as open_:
            row = open_.one("load_alert", "alert", tenant_id=tenant_id, alert_id=alert_id)
            if row["status"] != "open":
                raise Conflict("the alert is over", code="alert_cleared")
            if open_.execute("acknowledge", {"alert_id": alert_id, "now": now, "by": by}):
                _record(open_, row, "acknowledge", reason, by, now)
        return self.get(tenant_id, alert_id)

    def mute(
        self, tenant_id: str, alert_id: str, *, seconds: int, reason: str, by: str
    ) -> dict[str, Any]:
        """Quiet the alert's signal for a while, also if it opens again; 0 ends the quiet."""
        if not 0 <= seconds <= MUTE_SECONDS_MAX:
            raise InvalidInput(f"seconds must be 0 to {MUTE_SECONDS_MAX}", field="seconds")
        check_reason(reason, is_required=seconds > 0)
        now = self._clock.now()
        with self._rows.writing() as open_:
            row = open_.one("load_alert", "alert", tenant_id=tenant_id, alert_id=alert_id)
            arguments = {
                "tenant_id": row["tenant_id"],
                "signal_id": row["signal_id"],
                "until_at": now + seconds * SECOND,
                "by": by,
                "reason": reason,
            }
            if seconds:
                open_.execute("put_mute", arguments)
                _record(open_, row, "mute", reason, by, now, arguments["until_at"])
            elif open_.execute("remove_mute", arguments):
                _record(open_, row, "unmute", reason, by, now)
            open_.execute("wake", {"alert_id": alert_id})
        return self.get(tenant_id, alert_id)


def deliveries_of(
    open_: AlertTransaction, *, alert_id: str | None = None, channel_id: str | None = None
) -> list[dict[str, Any]]:
    """Deliveries of an alert or channel, newest first, each with its tries."""
    rows = open_.rows("load_deliveries", alert_id=alert_id, channel_id=channel_id)
    tries = open_.rows("load_attempts", delivery_ids=[row["delivery_id"] for row in rows])
    return [_delivery(row, tries) for row in rows]


def check_reason(reason: str, *, is_required: bool = True) -> None:
    """Raise InvalidInput unless a reason is a sentence at most, and given when it must be."""
    if len(reason) > REASON_LENGTH_MAX or (is_required and not reason.strip()):
        raise InvalidInput(f"reason must have 1 to {REASON_LENGTH_MAX} characters", field="reason")


def _record(
    open_: AlertTransaction,
    alert: Row,
    kind: str,
    reason: str,
    by: str,
    now: int,
    until_at: int | None = None,
) -> None:
    open_.execute(
        "record_action",
        {
            "tenant_id": alert["tenant_id"],
            "alert_id": alert["alert_id"],
            "kind": kind,
            "reason": reason,
            "until_at": until_at,
            "now": now,
            "by": by,
        },
    )


def _check_filters(filters: Mapping[str, str]) -> None:
    allowed = {"status": ("", "open", "cleared"), "severity": ("", *SEVERITIES)}
    for name, values in allowed.items():
        if filters.get(name, "") not in values:
            raise InvalidInput(f"{name} must be one of {', '.join(values[1:])}", field=name)


def _read_cursor(cursor: str) -> tuple[int | None, str]:
    if not cursor:
        return None, ""
    at, _, alert_id = cursor.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) < 19 and 0 < len(alert_id) < 64):
        raise InvalidInput("cursor must be a next_cursor of before", field="cursor")
    return int(at), alert_id


def _time(micros: int | None) -> str | None:
    return format_time(micros) if micros else None


def _alert(row: Row, now: int) -> dict[str, Any]:
    is_muted = row["muted_until"] > now
    return {
        "alert_id": row["alert_id"],
        "tenant_id": row["tenant_id"],
        "signal_id": row["signal_id"],
        "kind": row["kind"],
        "severity": row["severity"],
        "status": row["status"],
        "who": row["who"],
        "what": row["what"],
        "how_much": row["how_much"],
        "since": format_time(row["since"]),
        "next_step": row["next_step"],
        "how_to_stop": row["how_to_stop"],
        "opened_at": format_time(row["opened_at"]),
        "last_seen_at": format_time(row["last_seen_at"]),
        "times_seen": row["times_seen"],
        "cleared_at": _time(row["cleared_at"]),
        "steps_taken": row["step"] + 1,
        "acknowledged_at": _time(row["acknowledged_at"]),
        "acknowledged_by": row["acknowledged_by"],
        "muted_until": _time(row["muted_until"]) if is_muted else None,
        "muted_by": row["muted_by"] if is_muted else "",
        "muted_because": row["muted_because"] if is_muted else "",
        "link": f"/alerts/{row['alert_id']}",
    }


def _delivery(row: Row, tries: Sequence[Row]) -> dict[str, Any]:
    mine = [
        {
            "attempt": one["attempt"],
            "status": one["outcome"],
            "started_at": format_time(one["started_at"]),
            "latency_ms": one["latency_ms"],
            "answer": one["answer"],
            "error": one["error"],
        }
        for one in tries
        if one["delivery_id"] == row["delivery_id"]
    ]
    is_pending = row["status"] == "pending"
    return {
        "delivery_id": row["delivery_id"],
        "channel_id": row["channel_id"],
        "channel": row["channel"],
        "kind": row["kind"],
        "reason": row["reason"],
        "step": row["step"],
        "status": row["status"],
        "created_at": format_time(row["created_at"]),
        "next_attempt_at": format_time(row["due_at"]) if is_pending else None,
        "attempts": mine,
    }
