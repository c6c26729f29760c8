"""A real `tallystick serve` process for tests; stopped by its own id only."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from tallystick.clock import SystemClock, format_time
from tallystick.plumbing.embedded.child import spawn

_READY_SECONDS = 120


class Server:
    """One server on a data folder and a free port; `kill` is SIGKILL of the parent alone."""

    port = 0

    def __init__(self, folder: Path, *, is_ordinary: bool = False) -> None:
        """`is_ordinary` gives a root test's server the uid of an ordinary user."""
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.log")
        """A file and no pipe: one that nobody reads is full one day, and who writes then waits."""
        self._is_ordinary = is_ordinary
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client()

    def start(self) -> Server:
        (self.folder / "server.json").unlink(missing_ok=True)
        self._process = self.spawn()
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise AssertionError(self.log.read_text())
            try:
                found = msgspec.json.decode((self.folder / "server.json").read_bytes())
                key = (self.folder / "admin.key").read_text().strip()
                self.client.close()
                self.client = httpx.Client(
                    base_url=found["url"], headers={"Authorization": f"Bearer {key}"}, timeout=30
                )
                if self.client.get("/readyz").status_code == 200:
                    return self
            except (OSError, httpx.HTTPError, msgspec.DecodeError):
                pass
            time.sleep(0.05)
        raise AssertionError("the server did not become ready")

    def spawn(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            return spawn(
                [sys.executable, "-m", "tallystick.cli.main", "serve"]
                + ["--port", str(self.port), "--data", str(self.folder)],
                on_parent_death=signal.SIGTERM,
                unprivileged=self._is_ordinary,
                stdout=subprocess.DEVNULL,
                stderr=log.fileno(),
            )

    def tree(self) -> list[psutil.Process]:
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def kill(self) -> list[psutil.Process]:
        """SIGKILL the parent; return its former children."""
        assert self._process is not None
        children = self.tree()[1:]
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.client.close()
        return children

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=120)
        self.client.close()
        return int(self._process.returncode)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.client.get(path, params=parameters)
        answer.raise_for_status()
        return answer.json()

    def wait_until_ready(self) -> None:
        """Wait through an outage of a store."""
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            if self.client.get("/readyz").status_code == 200:
                return
            time.sleep(0.1)
        raise AssertionError(self.client.get("/readyz").text)

    def wait_until_settled(self) -> dict[str, Any]:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            report: dict[str, Any] = self.get("/v1/freshness")
            followers = [one for one in report["followers"] if one["name"] != "archiver"]
            lag = sum(follower["lag_events"] for follower in followers)
            if not lag and not report["followers"][-1]["pending_runs"] and not report["difference"]:
                return report
            time.sleep(0.1)
        raise AssertionError(f"not settled: {report}")


def event(**changes: Any) -> dict[str, Any]:
    """One good event of now, with what a test changes."""
    return {
        "event_id": "e1",
        "event_type": "token_usage",
        "event_time": format_time(SystemClock().now()),
        "tenant_id": "acme",
        "run_id": "r1",
        "provider": "openai",
        "model": "gpt-4o",
        "tokens_input": 1200,
        "tokens_output": 250,
        **changes,
    }
