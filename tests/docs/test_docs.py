"""The documents say what the code does: generated parts are current, names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tallystick.cli.main import app
from tallystick.plumbing.clickhouse import ClickHouse
from tallystick.reconcile.verify import CHECKED
from tests.docs.generate import CLICKHOUSE_SCHEMA, POSTGRES_SCHEMA, clickhouse_schema
from tests.docs.generate import postgres_schema as schema_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_postgres_schema_is_current(postgres_url: str) -> None:
    assert POSTGRES_SCHEMA.read_text("utf-8") == schema_of(postgres_url), "run make docs"


def test_the_clickhouse_schema_is_current(clickhouse: ClickHouse) -> None:
    assert CLICKHOUSE_SCHEMA.read_text("utf-8") == clickhouse_schema(clickhouse), "run make docs"


def test_every_invariant_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "invariants.md").read_text("utf-8")
    rows = re.findall(r"^\| (INV-\d\d) \| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == [f"INV-{number:02d}" for number in range(1, 33)]
    for invariant_id, _, _, tested in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", tested)
        assert named or "later" in tested, invariant_id
        for path, function in named:
            wanted = f"def {function}(" if function else ""
            assert wanted in (ROOT / path).read_text("utf-8"), (invariant_id, path, function)
    assert set(CHECKED) <= {row[0] for row in rows}


def test_the_readme_names_real_commands_and_files() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    commands |= {group.name for group in app.registered_groups}
    for command in re.findall(r"tallystick (\w+)", README):
        if command not in {"is"}:
            assert command in commands, command
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"`make (\w+)", README):
        assert f"\n{target}:" in makefile, target
    for path in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "adr").glob("*.md")), ids=lambda p: p.name)
def test_a_decision_has_its_parts(path: Path) -> None:
    text = path.read_text("utf-8")
    for part in ("Context", "Decision", "Good", "Bad", "Enforced by"):
        assert f"**{part}.**" in text, part
