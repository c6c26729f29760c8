"""An S3 of our own: a `moto` server process on a free loopback port, with one bucket."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

from tallystick.plumbing.embedded.child import spawn

_NAME = "tallystick"


class Bucket:
    """One bucket; `overwrite` changes an object behind the archive's back."""

    credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self._process = spawn(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            on_parent_death=signal.SIGKILL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self._put("")
                return
            except URLError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def url(self, prefix: str) -> str:
        options = f"region=us-east-1&endpoint=http://127.0.0.1:{self.port}&allow_http=true"
        return f"s3://{_NAME}/{prefix}?{options}"

    def overwrite(self, prefix: str, name: str, content: bytes) -> None:
        self._put(f"/{prefix}/{name}", content)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def _put(self, path: str, content: bytes = b"") -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/{_NAME}{path}", data=content, method="PUT"
        )
        urllib.request.urlopen(request, timeout=10).close()
