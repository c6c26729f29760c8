"""The gateway's speed on one machine: upstream, load, ledger and events share its cores.

    python -m benchmarks.gateway [calls] [streams]

calls: throughput at 8 connections (closed loop), latency at one connection against the same
upstream without a gateway, and at 300 a second (open loop). streams: 500 at 20 tokens a
second, the server's memory over time and the first byte's delay. Every call holds, over its
account and two budgets in USD, settles and writes its event, as in use.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from tests.server import Server
from tests.upstream.running import Upstream

ACCOUNTS = 100
BUDGETS: dict[str, dict[str, Any]] = {
    "all": {"window": "month"},
    "each-model": {"window": "day", "scope": {"model": "*"}},
}
"""Hard limits that every call is held against, beside its account's credit."""
SECONDS = 8
STREAMS = 500
STREAM_TOKENS = 200
_CONFIG = """
[upstreams.openai]
kind = "openai"
base_url = "{url}/v1"
api_key = "sk-bench"
connections_max = 2000
"""


def load(port: int, key: str, rate: float, connections: int, kind: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.load", str(port), key, str(rate)]
    command += [str(connections), str(SECONDS), kind, str(ACCOUNTS), f"t{time.monotonic_ns()}"]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, capture_output=True, check=True).stdout
    )
    return found


def prepare(server: Server) -> None:
    for number in range(1, ACCOUNTS + 1):
        name = f"acct-{number}"
        server.client.put(f"/v1/accounts/{name}", json={"tenant_id": "bench"}).raise_for_status()
        grant = {"account_id": name, "amount": "1000000", "source": "topup"}
        grant["idempotency_key"] = name
        server.client.post("/v1/grants", json=grant).raise_for_status()
    for budget_id, terms in BUDGETS.items():
        budget = {"tenant_id": "bench", "asset": "USD", "amount": "1000000", **terms}
        server.client.put(f"/v1/budgets/{budget_id}", json=budget).raise_for_status()


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def cpu_of(server: Server) -> dict[str, float]:
    """Seconds of CPU by part of the server."""
    parent, *children = server.tree()
    found = {"gateway": cpu_seconds(parent), "postgres": 0.0, "engine": 0.0}
    for child in children:
        found["postgres" if "postgres" in child.name() else "engine"] += cpu_seconds(child)
    return found


def calls(server: Server, upstream: Upstream) -> list[str]:
    port = server.client.base_url.port or 0
    key = server.client.headers["authorization"].partition(" ")[2]
    load(port, key, 0, 8, "call")  # warm
    load(port, key, 0, 1, "call")  # meanwhile followers catch up
    rows = [  # the quiet ones first: followers go on with a busy one's facts behind it
        ("upstream alone, 1 connection", load(upstream.port, key, 0, 1, "direct")),
        ("gateway, 1 connection", load(port, key, 0, 1, "call")),
        ("upstream alone, 300/s", load(upstream.port, key, 300, 64, "direct")),
        ("gateway, 300/s", load(port, key, 300, 64, "call")),
        ("upstream alone, 8 connections", load(upstream.port, key, 0, 8, "direct")),
    ]
    begun = cpu_of(server)
    busy = load(port, key, 0, 8, "call")
    spent = {
        name: (seconds - begun[name]) / sum(busy["statuses"].values()) * 1e6
        for name, seconds in cpu_of(server).items()
    }
    rows.append(("gateway, 8 connections", busy))
    lines = ["| what | calls/s | p50 ms | p99 ms | statuses |", "| --- | --- | --- | --- | --- |"]
    for name, found in rows:
        lines.append(
            f"| {name} | {found['per_second']} | {found['p50_ms']} | {found['p99_ms']} "
            f"| {found['statuses']} |"
        )
    lines.append(
        f"\nCPU per call at 8 connections, in microseconds: the gateway's process "
        f"{spent['gateway']:.0f}, PostgreSQL {spent['postgres']:.0f}, followers (facts, "
        f"rollups, charges and what else runs by itself) {spent['engine']:.0f}."
    )
    return lines


async def one_stream(port: int, key: str, path: str, mark: str) -> tuple[float, int]:
    """Return the time to the first token and the bytes that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(
        {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": mark}]}
    )
    begun = time.perf_counter()
    writer.write(
        (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"X-Tallystick-Account: acct-1\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n{body}"
        ).encode()
    )
    first, count = 0.0, 0
    while True:
        piece = await reader.read(65536)
        if not first and b"data:" in piece:
            first = time.perf_counter() - begun
        count += len(piece)
        if not piece or piece.endswith(b"0\r\n\r\n"):
            break
    writer.close()
    return first, count


async def many_streams(
    port: int, key: str, parent: psutil.Process, path: str = "/openai/v1/chat/completions"
) -> dict[str, Any]:
    mark = f"#slow rate=20 out={STREAM_TOKENS}#"
    tasks = [asyncio.create_task(one_stream(port, key, path, mark)) for _ in range(STREAMS)]
    memory: list[int] = []
    begun, cpu, own = time.perf_counter(), cpu_seconds(parent), time.process_time()
    while not all(task.done() for task in tasks):
        await asyncio.sleep(1)
        memory.append(parent.memory_info().rss // 2**20)
    took = time.perf_counter() - begun
    tokens = STREAMS * STREAM_TOKENS
    firsts = sorted(task.result()[0] for task in tasks)
    return {
        "seconds": round(took, 1),
        "memory_mib": memory[:: max(len(memory) // 8, 1)],
        "first_p50_ms": round(firsts[len(firsts) // 2] * 1000, 1),
        "own_cpu_us_per_token": round((time.process_time() - own) / tokens * 1e6),
        "cpu_us_per_token": round((cpu_seconds(parent) - cpu) / tokens * 1e6),
    }


async def first_bytes(port: int, key: str, path: str) -> float:
    """Median milliseconds to the first event of one stream at a time."""
    found = [(await one_stream(port, key, path, "#normal out=3#"))[0] for _ in range(200)]
    return sorted(found)[100] * 1000


def streams(server: Server, upstream: Upstream) -> list[str]:
    port = server.client.base_url.port or 0
    key = server.client.headers["authorization"].partition(" ")[2]
    direct = asyncio.run(first_bytes(upstream.port, key, "/v1/chat/completions"))
    through = asyncio.run(first_bytes(port, key, "/openai/v1/chat/completions"))
    parent = server.tree()[0]
    found = asyncio.run(many_streams(port, key, parent))
    alone = asyncio.run(many_streams(upstream.port, key, parent, "/v1/chat/completions"))
    return [
        f"- First event of a stream, median: {direct:.2f} ms from the upstream, "
        f"{through:.2f} ms through the gateway.",
        f"- {STREAMS} streams of {STREAM_TOKENS} tokens at 20 a second took "
        f"{found['seconds']} s (the upstream's own pace: {STREAM_TOKENS / 20:.0f} s); memory of "
        f"the gateway's process over time {found['memory_mib']} MiB; "
        f"{found['cpu_us_per_token']} microseconds of CPU a token, of the load client "
        f"{found['own_cpu_us_per_token']}.",
        f"- The same streams from the upstream, without a gateway: {alone['seconds']} s; of the "
        f"load client {alone['own_cpu_us_per_token']} microseconds of CPU a token.",
    ]


def main() -> None:
    wanted = sys.argv[1:] or ["calls", "streams"]
    folder = Path(tempfile.mkdtemp())
    upstream = Upstream()
    config = folder / "gateway.toml"
    config.write_text(_CONFIG.format(url=upstream.url))
    os.environ["TALLYSTICK_GATEWAY_CONFIG"] = str(config)
    server = Server(folder / "data").start()
    lines = []
    try:
        prepare(server)
        if "calls" in wanted:
            lines += calls(server, upstream)
        if "streams" in wanted:
            lines += ["", *streams(server, upstream)]
    finally:
        server.stop()
        upstream.stop()
    print("\n".join(lines))


if __name__ == "__main__":
    main()
