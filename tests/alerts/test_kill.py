"""A worker that is killed between sending and recording sends again, under the same id."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler

import pytest
from standardwebhooks.webhooks import Webhook

from tallystick.plumbing.embedded.child import spawn
from tests.alerts.receivers import http_receiver
from tests.alerts.scene import Scene

pytestmark = pytest.mark.slow


def _worker(postgres_url: str) -> subprocess.Popen[bytes]:
    return spawn(
        [sys.executable, "-m", "tests.alerts.victim", postgres_url],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_a_crash_repeats_the_delivery_with_its_id(postgres_url: str) -> None:
    scene = Scene(postgres_url, "acme")
    with http_receiver() as receiver:
        channel = scene.channel("webhook", receiver.url)
        victim = _worker(postgres_url)

        def kill(_: BaseHTTPRequestHandler) -> None:
            victim.send_signal(signal.SIGKILL)

        receiver.answers.append(kill)
        scene.raise_signal()
        receiver.wait_for(1)
        assert victim.wait(20) == -signal.SIGKILL
        assert [len(one["attempts"]) for one in scene.deliveries()] == [0]
        other = _worker(postgres_url)
        first, second = receiver.wait_for(2)[:2]
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.body == second.body
        Webhook(channel["secret"]).verify(second.body, second.headers)
        deadline = time.monotonic() + 20
        while scene.deliveries()[0]["status"] != "sent" and time.monotonic() < deadline:
            time.sleep(0.02)
        other.terminate()
        assert other.wait(20) == 0
        assert len(receiver.received) == 2
    told = scene.deliveries()
    assert [(one["status"], len(one["attempts"])) for one in told] == [("sent", 1)]
    scene.close()
