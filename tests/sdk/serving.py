"""Where a test's server is, and what an application needs to reach it."""

from __future__ import annotations

import time
from typing import Any

from tallystick.sdk import Tallystick
from tests.server import Server


def url_of(server: Server) -> str:
    return str(server.client.base_url)


def key_of(server: Server) -> str:
    return (server.folder / "admin.key").read_text().strip()


def story_of(server: Server, run_id: str) -> dict[str, Any]:
    """What the server tells of a run once all that it took is counted."""
    server.wait_until_settled()
    story: dict[str, Any] = server.get(f"/v1/runs/{run_id}", tenant_id="acme")
    return story


def ended_story_of(server: Server, run_id: str) -> dict[str, Any]:
    """What the server tells of a run as soon as it has counted its end."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = server.client.get(f"/v1/runs/{run_id}", params={"tenant_id": "acme"})
        story: dict[str, Any] = answer.json()
        if answer.status_code == 200 and story["status"] in ("completed", "failed"):
            return story
        time.sleep(0.05)
    raise AssertionError(f"run {run_id} did not end")


def usage_of(server: Server, client: Tallystick, run_id: str) -> dict[str, Any]:
    """The one usage event of a run, once all is delivered and counted."""
    assert client.flush(10)
    story = ended_story_of(server, run_id)
    (found,) = [one for one in story["timeline"] if one["event_type"] == "token_usage"]
    return dict(found)
