"""Speed and memory of a real `tallystick serve`.

    python -m benchmarks.serve                               all parts
    python -m benchmarks.serve [idle] [latency] [ingest]     some

Method. The server runs as its users run it, on a fresh data folder; the load comes from this
process on the same machine, so both share its cores. Ingest: requests of 500 events over
4 connections for a fixed number of events; the clock stops when `/v1/stats` shows them all.
Latency is open loop: requests leave at their time whether or not earlier ones were answered,
and an event's delay runs from when it was due to when `/v1/stats` shows it.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil
from tests.server import Server

from tallystick.clock import SystemClock, format_time

INGEST_EVENTS = 600_000
INGEST_RUNS = 3
BATCH = 500
CONNECTIONS = 4
LATENCY_SECONDS = 30
LATENCY_REQUESTS_PER_SECOND = 20
LATENCY_BATCH = 50
EVENTS_PER_RUN = 25


def bodies(tag: str, total: int, batch: int) -> list[bytes]:
    """Requests of realistic events: runs of 25 events, three models, 1% sent twice."""
    now = SystemClock().now()
    encoder = msgspec.json.Encoder()
    made = []
    for start in range(0, total, batch):
        events: list[dict[str, Any]] = []
        for number in range(start, start + batch):
            run, step = divmod(number, EVENTS_PER_RUN)
            event: dict[str, Any] = {
                "event_id": f"{tag}-{number}",
                "event_time": format_time(now - (total - number) * 100),
                "tenant_id": f"tenant-{run % 7}",
                "run_id": f"{tag}-run-{run}",
                "source": "gateway",
                "workflow": "support",
                "agent": "helper",
                "user_id": f"user-{run % 997}",
                "team": f"team-{run % 5}",
                "product": "assistant",
                "feature": f"feature-{run % 11}",
                "customer_tier": "pro",
                "environment": "production",
            }
            if step == 0:
                event |= {"event_type": "run_started"}
            elif step == EVENTS_PER_RUN - 1:
                event |= {"event_type": "run_completed"}
            elif step % 3 == 0:
                event |= {"event_type": "tool_call_finished", "tool": f"tool-{step}"}
                event |= {"tool_call_id": f"call-{number}", "latency_ms": 40 + step}
            else:
                event |= {"event_type": "token_usage", "provider": "openai"}
                event |= {"model": ("gpt-4o", "gpt-4o-mini", "gpt-4.1")[run % 3]}
                event |= {"request_id": f"req-{number}", "latency_ms": 800 + step}
                event |= {"tokens_input": 1500 + step, "tokens_output": 200}
                event |= {"tokens_cache_read": 1024}
            events.append(event)
        made.append(encoder.encode(events))
    return made


def post(server: Server, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    while True:
        answer = server.client.post("/v1/events", content=body, headers=headers)
        if answer.status_code != 503:
            answer.raise_for_status()
            return
        time.sleep(0.05)


def visible(server: Server) -> int:
    """Events that /v1/stats shows; asked for alone, for this comes four times a second."""
    rows = server.get("/v1/stats", **{"from": "2020-01-01T00:00:00Z", "metrics": "events"})["rows"]
    return int(rows[0]["events"])


def memory(server: Server) -> tuple[float, float]:
    """(RSS, PSS) of all processes, in MB; RSS counts shared pages once a process."""
    rss = pss = 0
    for one in server.tree():
        with suppress(psutil.NoSuchProcess):  # PostgreSQL's helpers come and go
            info = one.memory_full_info()
            rss, pss = rss + info.rss, pss + info.pss
    return rss / 1e6, pss / 1e6


def cpu_seconds(server: Server) -> dict[str, float]:
    """CPU used so far, by part."""
    used = {"api": 0.0, "engine": 0.0, "postgres": 0.0, "load": time.process_time()}
    for number, one in enumerate(server.tree()):
        with suppress(psutil.NoSuchProcess):
            line = " ".join(one.cmdline())
            part = "api" if number == 0 else "engine" if "workers.engine" in line else "postgres"
            used[part] += sum(one.cpu_times()[:2])
    return used


def idle() -> str:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data").start()
        time.sleep(10)
        rss, pss = memory(server)
        server.stop()
    return f"| idle memory, all processes | {rss:.0f} MB RSS | {pss:.0f} MB PSS |"


def ingest() -> str:
    rates, peaks, parts = [], [], []
    requests = bodies("b", INGEST_EVENTS, BATCH)
    for _ in range(INGEST_RUNS):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder) / "data").start()
            before, started = cpu_seconds(server), time.perf_counter()
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                list(pool.map(partial(post, server), requests))
            sent = time.perf_counter() - started
            while visible(server) < INGEST_EVENTS:
                time.sleep(0.1)
            seconds = time.perf_counter() - started
            after = cpu_seconds(server)
            rates.append(INGEST_EVENTS / seconds)
            peaks.append(memory(server)[0])
            parts.append({name: (after[name] - before[name]) / seconds for name in after})
            print(f"ingest: {rates[-1]:,.0f}/s, acknowledged after {sent:.1f} s of {seconds:.1f} s")
            server.stop()
    split = ", ".join(
        f"{name} {100 * statistics.median(part[name] for part in parts):.0f}%" for name in parts[0]
    )
    return (
        f"| ingest until visible in /v1/stats, {INGEST_EVENTS:,} events in batches of {BATCH} | "
        f"{statistics.median(rates):,.0f} events/s (median of {INGEST_RUNS}, "
        f"{min(rates):,.0f} to {max(rates):,.0f}) | CPU of 200%: {split}; "
        f"{max(peaks):,.0f} MB RSS after |"
    )


def latency() -> str:
    total = LATENCY_SECONDS * LATENCY_REQUESTS_PER_SECOND * LATENCY_BATCH
    requests = bodies("l", total, LATENCY_BATCH)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder) / "data").start()
        warm = bodies("w", LATENCY_BATCH, LATENCY_BATCH)
        post(server, warm[0])
        while visible(server) < LATENCY_BATCH:
            time.sleep(0.05)
        seen: list[tuple[float, int]] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                asked = visible(server) - LATENCY_BATCH
                seen.append((time.perf_counter(), asked))
                if asked >= total:
                    return
                time.sleep(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        started = time.perf_counter() + 0.2
        with ThreadPoolExecutor(16) as pool:
            for number, body in enumerate(requests):
                due = started + number / LATENCY_REQUESTS_PER_SECOND
                time.sleep(max(due - time.perf_counter(), 0))
                pool.submit(post, server, body)
        watcher.join(60)
        done.set()
        server.stop()
    delays = []
    for number in range(len(requests)):
        due = started + number / LATENCY_REQUESTS_PER_SECOND
        wanted = (number + 1) * LATENCY_BATCH
        delays.append(next(moment for moment, count in seen if count >= wanted) - due)
    delays.sort()
    p50, p95, p99 = (delays[int(len(delays) * share)] for share in (0.5, 0.95, 0.99))
    rate = LATENCY_REQUESTS_PER_SECOND * LATENCY_BATCH
    return (
        f"| event to /v1/stats at {rate:,} events/s, open loop | "
        f"p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms | "
        f"{len(requests)} requests of {LATENCY_BATCH} |"
    )


PARTS = {"idle": idle, "latency": latency, "ingest": ingest}


def main(names: list[str]) -> None:
    print("| what | figure | more |\n| --- | --- | --- |")
    for name in names or list(PARTS):
        print(PARTS[name](), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
