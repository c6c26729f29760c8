"""llm-comply's cases through the gateway: OpenAI chat, Anthropic and Open Responses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateway.place import Place

NOT_OFFERED = {"compact-response", "compact-missing-model"}
"""/responses/compact is not a surface of the gateway; the tool calls it advisory."""


@pytest.mark.parametrize(
    ("form", "base", "model"),
    [
        ("openai-chat", "/openai/v1", "o4-mini"),
        ("anthropic", "/anthropic/v1", "claude-haiku-4-5"),
        ("open-responses", "/openai/v1", "o4-mini"),
    ],
)
def test_every_case_of_the_format_passes(place: Place, form: str, base: str, model: str) -> None:
    command = [str(Path(sys.executable).with_name("llm-comply")), "--json", "--format", form]
    command += ["-u", place.url + base, "-k", place.key, "-m", model]
    command += ["-H", "X-Tallystick-Account:acme"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    report = json.loads(done.stdout)
    failed = {
        one["id"]: one.get("errors")
        for one in report["results"]
        if one["status"] != "passed" and one["id"] not in NOT_OFFERED
    }
    assert not failed
    assert len(report["results"]) >= 9
