"""Sealing: what was sealed opens for its own secret, use and name, and for nothing else."""

from __future__ import annotations

import pytest

from tallystick.access import AccessSecret
from tallystick.enforcement.alerts.channels import channel_sealing
from tallystick.plumbing.sealing import SealBroken, Sealing

SECRET = "one secret"
HOOK = bytes.fromhex(
    "000102030405060708090a0ba7d9abac242686ef493731fb5e64af910848893ac813355da10da8ef2a9281542cf6e08dd787"
)
"""A channel's target as the first version of this product stored it."""
SIGNING_KEY = bytes.fromhex(
    "000102030405060708090a0b374317e051b697da4b7716eb54f0144f1c15398da3bbe429fa5ed553"
)


def test_what_earlier_versions_sealed_still_opens() -> None:
    assert channel_sealing(SECRET).open(HOOK, "target:chn_1") == b"https://a.example/hook"
    assert AccessSecret(SECRET).private_keys.open(SIGNING_KEY, "key-1") == b"private part"


@pytest.mark.parametrize(
    ("secret", "use", "name"),
    [("another", "a", "n"), (SECRET, "b", "n"), (SECRET, "a", "m")],
)
def test_another_secret_use_or_name_does_not_open(secret: str, use: str, name: str) -> None:
    sealed = Sealing(SECRET.encode(), b"a", setting="TALLYSTICK_X").seal(b"plain", "n")
    other = Sealing(secret.encode(), use.encode(), setting="TALLYSTICK_X")
    with pytest.raises(SealBroken, match="TALLYSTICK_X"):
        other.open(sealed, name)


@pytest.mark.parametrize("length", [0, 5, 12, 20])
def test_what_is_cut_short_does_not_open(length: int) -> None:
    sealing = Sealing(SECRET.encode(), b"a", setting="TALLYSTICK_X")
    with pytest.raises(SealBroken):
        sealing.open(sealing.seal(b"plain", "n")[:length], "n")


def test_no_two_sealings_are_alike() -> None:
    sealing = Sealing(SECRET.encode(), b"a", setting="TALLYSTICK_X")
    assert sealing.seal(b"plain", "n") != sealing.seal(b"plain", "n")
