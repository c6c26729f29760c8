"""docs/access.md: the table of roles is the one in the code, and its routes exist."""

from __future__ import annotations

import re
from pathlib import Path

from tallystick.access import PERMISSIONS, ROLES
from tallystick.api.routes import ROUTES

TEXT = (Path(__file__).parents[2] / "docs" / "access.md").read_text("utf-8")


def test_the_table_of_roles_is_current() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.splitlines()
        if line.startswith("| ")
    ]
    roles = rows[0][1:]
    told = {
        role: {row[0] for row in rows[2:] if row[index + 1] == "yes"}
        for index, role in enumerate(roles)
    }
    assert told == {role: set(permissions) for role, permissions in ROLES.items()}
    assert [row[0] for row in rows[2:]] == list(PERMISSIONS)


def test_its_routes_exist() -> None:
    paths = {route.path for route in ROUTES}
    for path in re.findall(r"`(?:GET|POST) (/v1/[\w:-]+)`", TEXT):
        assert path in paths, path
