"""A document that names a test as its proof names one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED = re.compile(r"\btests/[\w./-]*\w(?:::(\w+))?")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(document: Path) -> None:
    for found in NAMED.finditer(document.read_text("utf-8")):
        path, _, function = found[0].partition("::")
        assert (ROOT / path).exists(), found[0]
        if function:
            text = (ROOT / path).read_text("utf-8")
            assert re.search(rf"^def {function}\(", text, re.MULTILINE), found[0]


def test_every_failure_of_the_pipeline_has_a_test() -> None:
    text = (ROOT / "docs" / "pipeline.md").read_text("utf-8")
    _, _, part = text.partition("## What fails, and the test that shows it\n")
    rows = [line for line in part.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 15
    for row in rows[2:]:
        assert "`tests/" in row.rsplit(" | ", 1)[-1], row
