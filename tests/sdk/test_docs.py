"""The blocks of docs/sdk.md and the example run as they stand, against a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tallystick.sdk import default_client, set_default_client
from tests.sdk.provider import Provider
from tests.sdk.serving import ended_story_of, key_of, url_of
from tests.server import Server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(server: Server, provider: Provider, tmp_path: Path) -> dict[str, str]:
    return {
        "TALLYSTICK_URL": url_of(server),
        "TALLYSTICK_KEY": key_of(server),
        "TALLYSTICK_ACCOUNT": "acme",
        "TALLYSTICK_TENANT": "acme",
        "TALLYSTICK_SPOOL": str(tmp_path),
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": "none",
        "ANTHROPIC_BASE_URL": provider.url,
        "ANTHROPIC_API_KEY": "none",
    }


def test_the_blocks_of_the_page_run(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    page = (ROOT / "docs" / "sdk.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    set_default_client(None)
    names: dict[str, Any] = {}
    try:
        for block in blocks:
            exec(compile(block, "docs/sdk.md", "exec"), names)
        assert default_client().flush(10)
        counters = default_client().counters()
    finally:
        for name in ("client", "claude"):
            names[name].close()
        default_client().close()
        set_default_client(None)
    assert counters["refused"] == 0
    assert "'refused': 0" in capsys.readouterr().out


def test_the_settings_of_the_page_exist() -> None:
    page = (ROOT / "docs" / "sdk.md").read_text("utf-8")
    table = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    source = (ROOT / "src" / "tallystick" / "sdk" / "client.py").read_text("utf-8")
    assert len(table) == 8
    for name in table:
        assert re.search(rf"^        {name}: ", source, re.MULTILINE), name


def test_the_example_agent_answers_and_is_charged(server: Server, settings: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "agent.py"), "What was a tally stick?"],
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"run (\S+) cost (\S+) USD", done.stdout)
    assert found is not None
    assert found[2] == "0.00212"
    story = ended_story_of(server, found[1])
    types = [one["event_type"] for one in story["timeline"]]
    assert types.count("token_usage") == types.count("tool_call_finished") == 1
