"""docs/gateway.md: its blocks are run, against the scripted upstream."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec

from tallystick.gateway.settings import GatewaySettings, check_settings
from tests.gateway.place import Place

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_five_minutes_work(place: Place) -> None:
    start, grant, look = blocks("sh")
    assert "tallystick serve" in start
    folder = place.server.folder
    environment = {**os.environ, "TALLYSTICK_URL": place.url, "TALLYSTICK_KEY": place.key}

    def shell(text: str) -> str:
        key = f"KEY=$(cat {folder}/admin.key)\n"
        text = text.replace("localhost:8787", place.url.removeprefix("http://"))
        text = key + text.replace("KEY=$(cat .tallystick/admin.key)\n", "")
        return subprocess.run(
            ["bash", "-c", text], capture_output=True, check=True, text=True
        ).stdout

    assert '"posted"' in shell(grant)
    (code,) = blocks("python")
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=False, text=True
    )
    assert told.returncode == 0, told.stderr
    assert "Cost-Usd 0.000" in told.stdout and "Run run-42" in told.stdout
    place.event("run-42")
    assert '"calls":1' in shell(look)


def test_the_settings_are_real() -> None:
    (text,) = blocks("toml")
    settings = msgspec.convert(tomllib.loads(text), GatewaySettings)
    checked = check_settings(settings, {"OPENAI_API_KEY": "sk-1"})
    assert checked.upstreams["openai"].api_key == "sk-1"
