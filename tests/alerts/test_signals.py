"""A signal is one alert while it lasts, in the transaction of who raised it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row

from tallystick.enforcement.alerts import AlertStore
from tallystick.errors import InvalidInput
from tests.alerts.scene import SIGNAL

STORE = AlertStore()


@pytest.fixture
def connection(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, row_factory=dict_row) as opened:
        opened.execute("SET ROLE tallystick_app")
        yield opened
        opened.rollback()


def _alerts(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    return connection.execute("SELECT * FROM enforcement.alert ORDER BY opened_at").fetchall()


def _raise(connection: psycopg.Connection[Any], **changes: Any) -> None:
    STORE.raise_signal(connection, msgspec.structs.replace(SIGNAL, **changes))


def test_a_repeat_keeps_one_alert_and_says_how_much_it_is_now(
    connection: psycopg.Connection[Any],
) -> None:
    _raise(connection)
    _raise(connection, how_much="93 of 100 USD", at=SIGNAL.at + 5)
    (alert,) = _alerts(connection)
    assert (alert["times_seen"], alert["how_much"]) == (2, "93 of 100 USD")
    assert (alert["opened_at"], alert["last_seen_at"]) == (SIGNAL.at, SIGNAL.at + 5)


def test_only_a_higher_severity_wakes_delivery_again(connection: psycopg.Connection[Any]) -> None:
    _raise(connection)
    connection.execute("UPDATE enforcement.alert SET due_at = 77")
    _raise(connection, severity="info")
    assert [(one["severity"], one["due_at"]) for one in _alerts(connection)] == [("warning", 77)]
    _raise(connection, severity="critical")
    assert [(one["severity"], one["due_at"]) for one in _alerts(connection)] == [("critical", 0)]


def test_a_cleared_signal_opens_again_as_another_alert(connection: psycopg.Connection[Any]) -> None:
    STORE.clear(connection, SIGNAL.signal_id, SIGNAL.at)
    _raise(connection)
    STORE.clear(connection, SIGNAL.signal_id, SIGNAL.at + 1)
    STORE.clear(connection, SIGNAL.signal_id, SIGNAL.at + 2)
    _raise(connection, at=SIGNAL.at + 3)
    assert [(one["status"], one["cleared_at"]) for one in _alerts(connection)] == [
        ("cleared", SIGNAL.at + 1),
        ("open", None),
    ]


def test_tenants_do_not_share_a_signal(connection: psycopg.Connection[Any]) -> None:
    _raise(connection)
    _raise(connection, tenant_id="other")
    STORE.clear(connection, SIGNAL.signal_id, SIGNAL.at, tenant_id="other")
    assert {one["tenant_id"]: one["status"] for one in _alerts(connection)} == {
        "acme": "open",
        "other": "cleared",
    }


def test_an_unknown_severity_is_refused(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(InvalidInput):
        _raise(connection, severity="catastrophic")
