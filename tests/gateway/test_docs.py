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
    start, grant, look, _ = blocks("sh")
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


def test_keys_are_kept_as_it_says(place: Place, tmp_path: Path) -> None:
    *_, text = blocks("sh")
    for name in ("openai.key", "acme.key"):
        (tmp_path / name).write_text("sk-of-the-docs-page-5e6f\n")
    command = f"{sys.executable} -m tallystick.cli.main provider-key"
    for kept in ("openai", "openai --tenant acme"):
        assert f"tallystick provider-key set {kept} < " in text
    # an upstream that nobody calls, so that the other tests' key stays in use
    text = text.replace("set openai", "set of-the-docs").replace("< ", f"< {tmp_path}/")
    text = text.replace("tallystick provider-key", command)
    environment = {**os.environ, "TALLYSTICK_DATA": str(place.server.folder)}
    told = subprocess.run(
        ["bash", "-ec", text], env=environment, capture_output=True, check=False,
        text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("...5e6f") == 2 and "sk-of" not in told.stdout
    for query in ("", "?tenant_id=acme"):
        place.server.client.delete("/v1/provider-keys/of-the-docs" + query).raise_for_status()


def test_the_settings_are_real() -> None:
    (text,) = blocks("toml")
    settings = msgspec.convert(tomllib.loads(text), GatewaySettings)
    names = ("OPENAI_API_KEY", "GEMINI_API_KEY", "AWS_BEARER_TOKEN_BEDROCK")
    checked = check_settings(settings, dict.fromkeys(names, "sk-1"))
    assert checked.upstreams["bedrock"].base_url.endswith(
        "bedrock-runtime.eu-central-1.amazonaws.com"
    )
    assert checked.upstreams["openai"].api_key == "sk-1"
