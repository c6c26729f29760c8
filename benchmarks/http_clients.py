"""Which HTTP client calls upstreams: requests a second and CPU each, against one upstream.

    python -m benchmarks.http_clients

The upstream is the scripted one (about 25,000 a second alone). Each client sends a 1 KB chat
call from 8 tasks for 4 seconds on uvloop, as the gateway does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import httpx
import uvloop
from tests.upstream.running import Upstream

SECONDS = 4.0
TASKS = 8
BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"' + b"a word " * 140 + b'"}]}'
HEADERS = {"Authorization": "Bearer sk-x", "Content-Type": "application/json"}
RESULTS = Path(__file__).parent / "results" / "http_clients.md"


async def drive(call: Callable[[], Awaitable[int]]) -> tuple[float, float]:
    """Calls a second, and microseconds of CPU each."""
    for _ in range(50):
        await call()
    ends = time.perf_counter() + SECONDS
    count = 0

    async def worker() -> None:
        nonlocal count
        while time.perf_counter() < ends:
            assert await call() > 100
            count += 1

    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*[worker() for _ in range(TASKS)])
    took = time.perf_counter() - begun
    return count / took, (time.process_time() - cpu) / count * 1e6


async def with_httpx(url: str) -> tuple[float, float]:
    async with httpx.AsyncClient(headers=HEADERS, timeout=30) as client:

        async def call() -> int:
            return len((await client.post(url, content=BODY)).content)

        return await drive(call)


async def with_aiohttp(url: str) -> tuple[float, float]:
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def call() -> int:
            async with session.post(url, data=BODY) as answer:
                return len(await answer.read())

        return await drive(call)


async def with_streams(url: str) -> tuple[float, float]:
    """A floor: bare asyncio streams, without TLS, limits, time-outs or a parser worth the name."""
    host, port = url.removeprefix("http://").partition("/")[0].split(":")
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    text = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{head}"
    request = (text + f"Content-Length: {len(BODY)}\r\n\r\n").encode() + BODY
    free = [await asyncio.open_connection(host, int(port)) for _ in range(TASKS)]

    async def call() -> int:
        reader, writer = free.pop()
        writer.write(request)
        found = await reader.readuntil(b"\r\n\r\n")
        length = int(found.rpartition(b"content-length:")[2].split()[0])
        body = await reader.readexactly(length)
        free.append((reader, writer))
        return len(body)

    return await drive(call)


def main() -> None:
    upstream = Upstream()
    url = upstream.url + "/v1/chat/completions"
    print("| client | calls/s | CPU microseconds each |\n| --- | --- | --- |")
    try:
        for name, client in (
            (f"httpx {httpx.__version__}", with_httpx),
            (f"aiohttp {aiohttp.__version__}", with_aiohttp),
            ("bare asyncio streams (a floor)", with_streams),
        ):
            rate, cpu = uvloop.run(client(url))
            print(f"| {name} | {rate:.0f} | {cpu:.0f} |", flush=True)
    finally:
        upstream.stop()


if __name__ == "__main__":
    main()
