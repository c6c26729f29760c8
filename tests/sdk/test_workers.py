"""Applications that work in processes of their own: what each records arrives."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.sdk.provider import Provider
from tests.sdk.serving import ended_story_of, key_of, story_of, url_of
from tests.sdk.worker_app import KINDS
from tests.server import Server


def settings_of(server: Server) -> dict[str, str]:
    return {
        "TALLYSTICK_URL": url_of(server),
        "TALLYSTICK_KEY": key_of(server),
        "TALLYSTICK_TENANT": "acme",
    }


def test_what_a_worker_recorded_is_delivered_before_it_ends(server: Server) -> None:
    """multiprocessing ends its workers without `atexit`, and their spool is in memory."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.sdk.worker_app"],
        env={**os.environ, **settings_of(server)},
        timeout=120,
        check=True,
    )
    for name in ("parent", *KINDS):
        assert ended_story_of(server, f"worker-{name}")["status"] == "completed"


def test_a_stream_that_is_open_at_the_end_is_settled_by_who_opened_it(
    server: Server, provider: Provider
) -> None:
    settings = {"TALLYSTICK_ACCOUNT": "acme", "PROVIDER_URL": f"{provider.url}/v1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.sdk.leaving_app"],
        env={**os.environ, **settings_of(server), **settings},
        timeout=120,
        check=True,
        capture_output=True,
    )
    assert json.loads(done.stdout)["held"] != "0", "the child has not ended its parent's call"
    assert server.get("/v1/accounts/acme/balance")["held"] == "0"
    story = story_of(server, "left-open")
    (call,) = [one for one in story["timeline"] if one["event_type"] == "token_usage"]
    assert (call["usage_quality"], call["error_code"]) == ("estimated", "abandoned")
