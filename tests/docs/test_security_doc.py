"""docs/security.md names tests and settings that exist."""

from __future__ import annotations

import re
from pathlib import Path

from tallystick.settings import Settings

_ROOT = Path(__file__).parents[2]
_TEXT = (_ROOT / "docs" / "security.md").read_text("utf-8")


def test_every_test_it_names_is_there() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", _TEXT))
    assert len(named) > 15
    assert [path for path in sorted(named) if not (_ROOT / path).is_file()] == []


def test_every_setting_it_names_is_there() -> None:
    named = set(re.findall(r"TALLYSTICK_(\w+)", _TEXT))
    known = {name.upper() for name in Settings.__struct_fields__}
    assert named and named <= known


def test_every_make_target_it_names_is_there() -> None:
    makefile = (_ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`make (\w+)`", _TEXT):
        assert f"\n{target}:" in makefile
