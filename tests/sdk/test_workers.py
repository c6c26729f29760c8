"""Applications that work in processes of their own: what each records arrives."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.sdk.serving import ended_story_of, key_of, url_of
from tests.sdk.worker_app import KINDS
from tests.server import Server


def test_what_a_worker_recorded_is_delivered_before_it_ends(server: Server) -> None:
    """multiprocessing ends its workers without `atexit`, and their spool is in memory."""
    settings = {
        "TALLYSTICK_URL": url_of(server),
        "TALLYSTICK_KEY": key_of(server),
        "TALLYSTICK_TENANT": "acme",
    }
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.sdk.worker_app"],
        env={**os.environ, **settings},
        timeout=120,
        check=True,
    )
    for name in ("parent", *KINDS):
        assert ended_story_of(server, f"worker-{name}")["status"] == "completed"
