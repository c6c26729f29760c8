"""Programs that wait for their end."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import signal, threading, time
from tallystick.plumbing.embedded.child import take_stop_signals

wait = take_stop_signals()

def get_the_signal():
    time.sleep(0.2)
    signal.pthread_kill(threading.get_ident(), signal.{name})

threading.Thread(target=get_the_signal).start()
wait()
print("stopped")
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_stop_signal_that_another_thread_gets_is_noticed(name: str) -> None:
    """The kernel chose one of chDB's threads, and the main one slept on until it was killed."""
    program = [sys.executable, "-c", _PROGRAM.format(name=name)]
    done = subprocess.run(program, check=True, capture_output=True, timeout=60)
    assert done.stdout == b"stopped\n"
