"""The commands of docs/limits.md run as they stand, against a real server."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tallystick.cli.main import app
from tests.server import Server

TEXT = (Path(__file__).parents[2] / "docs" / "limits.md").read_text("utf-8")


def commands() -> list[str]:
    """Every command of the page, in its order."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("limits") / "data").start()
    yield made
    made.stop()


def test_the_commands_run_as_they_stand(server: Server) -> None:
    runner = CliRunner(env={**os.environ, "TALLYSTICK_DATA": str(server.folder)})
    outputs = {}
    for command in commands():
        words = shlex.split(command)
        assert words.pop(0) == "tallystick"
        result = runner.invoke(app, words)
        assert result.exit_code == 0, (command, result.output, result.exception)
        outputs[" ".join(words[:3])] = result.output
    assert "500 USD a month, team=search" in outputs["budget show search-monthly"]
    assert "revision 2" in outputs["budget set search-monthly"]
    shown = runner.invoke(app, ["budget", "list", "--tenant", "acme", "--json"])
    left = {one["budget_id"]: one for one in json.loads(shown.output)["budgets"]}
    assert sorted(left) == ["search-monthly", "user-daily"]
    assert (left["search-monthly"]["amount"], left["user-daily"]["status"]) == ("750", "paused")
