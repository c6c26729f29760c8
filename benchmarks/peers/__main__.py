"""Gateways side by side: Tallystick with its ledger, budgets and events on; peers without any.

    python -m benchmarks.peers [FOLDER]        keeps the peers' environments (2 GB; `.bench/peers`)

Method. One scripted upstream, one load process (`benchmarks/load.py`), one server at a time;
every round asks each of them in turn, medians of three rounds are shown. LiteLLM runs one
worker with a master key and no database (its keys and budgets would need one), Portkey as it
comes, told by headers where to send. Tallystick holds credit before each call, settles it to
the reported usage and writes a usage event. Memory is that of the whole process tree.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.server import Server
from tests.upstream.running import Upstream

from benchmarks.gateway import _CONFIG, ACCOUNTS, prepare
from tallystick.plumbing.embedded.child import spawn

HERE = Path(__file__).parent
ROUNDS = 3
SECONDS = 6
_READY_SECONDS = 180
_LITELLM = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_base: {url}/v1
      api_key: sk-bench
general_settings:
  master_key: {key}
"""


class Gateway:
    """A server under load: where it listens, what opens it, and what headers it wants."""

    def __init__(self, name: str, port: int, path: str, headers: str, pid: int) -> None:
        self.name = name
        self.port = port
        self.path = path
        self.headers = headers
        self._pid = pid

    def load(self, connections: int, rate: float = 0) -> dict[str, Any]:
        command = [sys.executable, "-m", "benchmarks.load", str(self.port), self.headers]
        command += [str(rate), str(connections), str(SECONDS), f"path:{self.path}"]
        command += [str(ACCOUNTS), f"t{time.monotonic_ns()}"]
        done = subprocess.run(command, capture_output=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def memory(self) -> int:
        """MiB of the process and its children."""
        root = psutil.Process(self._pid)
        return sum(
            int(one.memory_info().rss) for one in [root, *root.children(recursive=True)]
        ) // (2**20)


def install(folder: Path) -> None:
    """Make the peers' environments, once."""
    python = folder / "litellm" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder / "litellm")], check=True)
    pip = [str(python), "-m", "pip", "install", "-q", "-r", str(HERE / "requirements.txt")]
    subprocess.run(pip, check=True)
    portkey = folder / "portkey"
    portkey.mkdir(exist_ok=True)
    shutil.copy(HERE / "package.json", portkey)
    subprocess.run(["npm", "install", "--silent"], cwd=portkey, check=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def running(
    name: str, command: list[str], port: int, path: str, headers: str, **environment: str
) -> Iterator[Gateway]:
    """One peer as a process of ours."""
    process = spawn(
        command,
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        environment={**os.environ, **environment},
    )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/", timeout=2)
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.3)
        yield Gateway(name, port, path, headers, process.pid)
    finally:
        process.kill()
        process.wait()


@contextmanager
def litellm(folder: Path, upstream: Upstream) -> Iterator[Gateway]:
    port, key = free_port(), "sk-" + secrets.token_urlsafe(32)
    config = folder / "litellm.yaml"
    config.write_text(_LITELLM.format(url=upstream.url, key=key))
    command = [str(folder / "litellm" / "bin" / "litellm"), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    with running(
        "LiteLLM 1.106.0, no ledger",
        command,
        port,
        "/v1/chat/completions",
        f"Authorization: Bearer {key}",
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOG="ERROR",
    ) as found:
        yield found


@contextmanager
def portkey(folder: Path, upstream: Upstream) -> Iterator[Gateway]:
    port = free_port()
    script = folder / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    headers = (
        "Authorization: Bearer sk-bench\r\nx-portkey-provider: openai\r\n"
        f"x-portkey-custom-host: {upstream.url}/v1"
    )
    command = ["node", str(script), f"--port={port}", "--headless"]
    with running(
        "Portkey 1.15.2, no ledger", command, port, "/v1/chat/completions", headers
    ) as found:
        yield found


def tallystick(server: Server) -> Gateway:
    key = server.client.headers["authorization"]
    port = server.client.base_url.port or 0
    pid = server.tree()[0].pid
    headers = f"Authorization: {key}"
    path = "/openai/v1/chat/completions"
    return Gateway("Tallystick, ledger and events on", port, path, headers, pid)


def measure(gateways: list[Gateway]) -> list[str]:
    found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for one in gateways:
        one.load(8)  # warm
    for _ in range(ROUNDS):
        for one in gateways:
            alone = one.load(1)  # before the busy one, whose work goes on behind it
            found.setdefault(one.name, []).append((one.load(8), alone))
    lines = [
        "| gateway | calls/s at 8 connections | median ms at 1 | p99 ms at 1 | MiB | failed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in gateways:
        rounds = found[one.name]
        failed = sum(
            count
            for pair in rounds
            for each in pair
            for status, count in each["statuses"].items()
            if status != "200"
        )
        busy = statistics.median(pair[0]["per_second"] for pair in rounds)
        middle = statistics.median(pair[1]["p50_ms"] for pair in rounds)
        tail = statistics.median(pair[1]["p99_ms"] for pair in rounds)
        lines.append(
            f"| {one.name} | {busy:,.0f} | {middle} | {tail} | {one.memory():,} | {failed} |"
        )
    return lines


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    install(folder)
    with ExitStack() as stack:
        upstream = Upstream()
        stack.callback(upstream.stop)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = scratch / "gateway.toml"
        config.write_text(_CONFIG.format(url=upstream.url))
        os.environ["TALLYSTICK_GATEWAY_CONFIG"] = str(config)
        server = Server(scratch / "data").start()
        stack.callback(server.stop)
        prepare(server)
        direct = Gateway(
            "the upstream alone",
            upstream.port,
            "/v1/chat/completions",
            "Authorization: Bearer sk-bench",
            upstream.pid,
        )
        ours = tallystick(server)
        peers = [
            stack.enter_context(litellm(folder, upstream)),
            stack.enter_context(portkey(folder, upstream)),
        ]
        print("\n".join(measure([direct, ours, *peers])))


if __name__ == "__main__":
    main(Path("".join(sys.argv[1:2]) or ".bench/peers").absolute())
