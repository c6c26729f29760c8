"""The distributed form for tests: real Kafka, real PostgreSQL, chDB behind HTTP, our processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tallystick.plumbing.embedded.child import spawn
from tallystick.plumbing.log.kafka import KafkaOptions

READY_SECONDS = 60
LEASE_SECONDS = 4.0


class Cluster:
    """Stores by URL and any number of our processes; `kill` is SIGKILL."""

    def __init__(
        self, folder: Path, postgres_url: str, brokers: str, topic: str, **settings: str
    ) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._clickhouse_port = self.start_clickhouse()
        self.clickhouse_url = f"http://tallystick:key@127.0.0.1:{self._clickhouse_port}/"
        properties = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}
        self.kafka = KafkaOptions(
            brokers=brokers, topic=topic, broken_topic=f"{topic}-broken", properties=properties
        )
        self.environment = {
            "TALLYSTICK_POSTGRES_URL": postgres_url,
            "TALLYSTICK_CLICKHOUSE_URL": self.clickhouse_url,
            "TALLYSTICK_KAFKA_BROKERS": brokers,
            "TALLYSTICK_KAFKA_TOPIC": topic,
            "TALLYSTICK_KAFKA_BROKEN_TOPIC": self.kafka.broken_topic,
            "TALLYSTICK_KAFKA_PROPERTIES": json.dumps(properties),
            "TALLYSTICK_KAFKA_REPLICATION": "1",
            "TALLYSTICK_ADMIN_KEY": "ts_distributed_test_key",
            "TALLYSTICK_REDACTION_KEY": "a key that all processes share",
            "TALLYSTICK_LEASE_SECONDS": str(LEASE_SECONDS),
            **settings,
        }
        self.run("migrate")
        self.clients: dict[str, httpx.Client] = {}

    def start_clickhouse(self) -> str:
        """Start chDB on its folder, and on its port if it had one; return the port."""
        port = [self._clickhouse_port] if hasattr(self, "_clickhouse_port") else []
        folder = str(self._folder / "chdb")
        return self._line(self._start("clickhouse", "tests.chdb_server", [folder, "key", *port]))

    def run(self, *arguments: str) -> None:
        """Run a command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "tallystick.cli.main", *arguments],
            env={**os.environ, **self.environment},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()

    def api(self, name: str = "api") -> httpx.Client:
        """Start an API process; return a client of it."""
        process = self._start(name, "tallystick.cli.main", ["api", "--port", "0"])
        url = self._line(process).rpartition(" ")[2]
        key = self.environment["TALLYSTICK_ADMIN_KEY"]
        self.clients[name] = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60
        )
        return self.clients[name]

    def worker(self, role: str, name: str = "") -> str:
        """Start a worker; a name that was killed comes back as the same instance."""
        name = name or role
        process = self._start(
            name,
            "tallystick.cli.main",
            ["worker", role, "--health-port", "0"],
            {"TALLYSTICK_INSTANCE_ID": name},
        )
        self._line(process)
        return name

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def pause(self, name: str) -> None:
        """SIGSTOP: alive, but hangs."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._processes[name].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End everything."""
        for client in self.clients.values():
            client.close()
        for name in reversed(list(self._processes)):
            process = self._processes[name]
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def settle(self, client: httpx.Client, seconds: float = 120) -> dict[str, Any]:
        """Wait until everything accepted is counted and charged."""
        deadline = time.monotonic() + seconds
        report: dict[str, Any] = {}
        while time.monotonic() < deadline:
            report = client.get("/v1/freshness").json()
            lag = sum(
                one["lag_events"]
                for one in report["followers"]
                if one["name"] not in ("archiver", "vault")
            )
            pending = report["followers"][-1]["pending_runs"]
            if not lag and not pending and not report["difference"]:
                return report
            time.sleep(0.2)
        raise AssertionError(f"not settled: {report}\n{self.logs()}")

    def logs(self) -> str:
        """The end of what every process said."""
        texts = sorted(self._folder.glob("*.log"))
        return "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in texts)

    def _start(
        self, name: str, module: str, arguments: list[str], more: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        known = getattr(self, "environment", {})
        data = {"TALLYSTICK_DATA": str(self._folder / f"data-{name}")}
        with (self._folder / f"{name}.log").open("ab") as log:
            process = spawn(
                [sys.executable, "-m", module, *arguments],
                on_parent_death=signal.SIGKILL,
                stdout=subprocess.PIPE,
                stderr=log.fileno(),
                environment={**os.environ, **known, **data, **(more or {})},
            )
        self._processes[name] = process
        return process

    def _line(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline().decode().strip()
        assert line, self.logs()
        return line
