"""The demo's messages and requests, made once."""

from __future__ import annotations

import pytest

from tallystick.demo.disturb import DemoRequest, Disturbance, disturb
from tallystick.demo.traces import Message, all_messages
from tests.unit.demo.moment import NOW, SEED


@pytest.fixture(scope="session")
def messages() -> list[Message]:
    return list(all_messages(NOW, SEED))


@pytest.fixture(scope="session")
def disturbed(messages: list[Message]) -> tuple[list[DemoRequest], Disturbance]:
    delivery, record = disturb(messages, NOW, SEED)
    return delivery.requests, record
