"""README.md: the commands of its tour run as they stand, against a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import Server
from tests.upstream.running import Upstream

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose gateway calls the scripted provider, as the README starts it."""
    folder = tmp_path_factory.mktemp("readme")
    upstream = Upstream()
    example = (ROOT / "examples" / "gateway.toml").read_text("utf-8")
    assert "http://127.0.0.1:9999/v1" in example
    (folder / "gateway.toml").write_text(example.replace("http://127.0.0.1:9999", upstream.url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALLYSTICK_GATEWAY_CONFIG", str(folder / "gateway.toml"))
        server = Server(folder / "data").start()
    yield server
    server.stop()
    upstream.stop()


def test_the_tour_runs_as_it_stands(place: Server) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "TALLYSTICK_DATA": str(place.folder),
        "KEY": (place.folder / "admin.key").read_text().strip(),
        "URL": str(place.client.base_url).rstrip("/"),
        "COLUMNS": "200",
    }
    script = "set -euo pipefail\n" + "\necho =====\n".join(BLOCKS)
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = done.stdout.split("=====\n")
    assert len(outputs) == len(BLOCKS) == 8
    keys, gateway, budgets, events, asked, stopped, proof, mended = outputs
    assert '"roles":["service"]' in keys and '"code":"forbidden"' in keys
    assert "x-tallystick-cost-usd: 0.000" in gateway and '"finish_reason":"stop"' in gateway
    assert '"decided_by":"budget:search-daily"' in budgets and "0.01 USD a day" in budgets
    assert '"would_be":"declined"' in budgets
    assert '{"accepted":2,"duplicates":0,"rejected":[]}' in events
    assert "charged 0.66 of 0.66 credits" in asked and '"cost_usd":"0.0055"' in asked
    assert '"step":"block"' in stopped and '"code": "forbidden"' in stopped
    assert "FAILED" not in proof and "vault and analytics agree" in proof
    assert "gpt-4o" in mended or "nothing" in mended, mended
