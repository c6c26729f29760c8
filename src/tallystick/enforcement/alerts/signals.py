"""Signals into alerts, in the transaction of who found them (migration 0530_alerts.sql).

A follower records a signal together with its position, so it is neither lost nor repeated;
a repeat of an open one changes no identity. Nothing is sent here: the delivery lane looks at
what is due. In one transaction raise signals in the order of their ids, so that two callers
never wait for each other.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import psycopg

from tallystick.enforcement.alerts.model import SEVERITIES, Signal
from tallystick.errors import InvalidInput
from tallystick.plumbing.sql import load_statements

_SQL = {
    name: text.encode()
    for name, text in load_statements("tallystick.enforcement.alerts", "signals.sql").items()
}


class SignalSink(Protocol):
    """Where whoever finds something tells it, in the transaction of what it found."""

    def raise_signal(self, connection: psycopg.Connection[Any], signal: Signal) -> None:
        """Someone should know; a repeat is known by its id."""
        ...

    def clear(self, connection: psycopg.Connection[Any], signal_id: str, at: int) -> None:
        """It is over."""
        ...


class AlertStore:
    """Opens, keeps and clears alerts; needs nothing but the caller's connection."""

    def raise_signal(self, connection: psycopg.Connection[Any], signal: Signal) -> None:
        """Open an alert, or say of the open one that it lasts and how much it is now."""
        connection.execute(_SQL["raise_signal"], _arguments(signal))

    def clear(
        self, connection: psycopg.Connection[Any], signal_id: str, at: int, *, tenant_id: str = ""
    ) -> None:
        """End the open alert of a signal; without a tenant, of every tenant that has one."""
        connection.execute(
            _SQL["clear_signal"], {"signal_id": signal_id, "at": at, "tenant_id": tenant_id}
        )


def _arguments(signal: Signal) -> dict[str, Any]:
    if signal.severity not in SEVERITIES:
        raise InvalidInput(f"severity must be one of {', '.join(SEVERITIES)}", field="severity")
    return msgspec.structs.asdict(signal)
