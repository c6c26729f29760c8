"""Attribution: what a caller says stands below what its key or token says of it."""

from __future__ import annotations

import pytest

from tallystick.access import Principal
from tallystick.enforcement.attribution import attributed

SAID = {"user_id": "mallory", "feature": "chat"}


def caller(key_id: str = "", **attribution: str) -> Principal:
    return Principal("s", frozenset(), frozenset(), "acme", key_id, attribution=attribution)


def test_what_a_key_pins_cannot_be_said_otherwise() -> None:
    found = attributed(SAID, caller("k1", user="alice"))
    assert found == {"user": "alice", "feature": "chat", "key": "k1"}


@pytest.mark.parametrize("name", ["key", "key_id", "api_key"])
def test_nobody_says_which_key_asked(name: str) -> None:
    """A token is no key: neither its own budget nor another's key is used up."""
    assert attributed({name: "k2"}, caller("k1")) == {"key": "k1"}
    assert attributed({name: "k2"}, caller()) == {}
    assert attributed({name: "k2"}, caller(key="gateway-7")) == {"key": "gateway-7"}
