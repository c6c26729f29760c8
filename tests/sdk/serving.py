"""Where a test's server is, and what an application needs to reach it."""

from __future__ import annotations

from typing import Any

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
