"""Which HTTP framework and server: one worker process, small and large JSON bodies.

Each candidate decodes a typed body with msgspec, checks a bearer key and answers JSON.
Load comes from `wrk` on the same machine, so figures compare candidates; they are not
what the server would reach alone. Run: python -m benchmarks.http_frameworks
"""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

RUNS = 3
SECONDS = 3
KEY = "Bearer ts_0123456789abcdef0123456789abcdef"


class Hold(msgspec.Struct):
    account_id: str
    amount: str
    run_id: str
    ttl_seconds: int
    idempotency_key: str


class Answer(msgspec.Struct):
    hold_id: str
    status: str
    available: str


_decoder = msgspec.json.Decoder(Hold)
_many = msgspec.json.Decoder(list[dict[str, Any]])


def work(body: bytes, key: str | None) -> bytes:
    if key != KEY:
        return b"{}"
    if len(body) > 10_000:
        return b'{"accepted":%d}' % len(_many.decode(body))
    hold = _decoder.decode(body)
    return msgspec.json.encode(Answer(hold.idempotency_key, "held", hold.amount))


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def post(request: Request) -> Response:
        content = work(await request.body(), request.headers.get("authorization"))
        return Response(content, media_type="application/json")

    return Starlette(routes=[Route("/v1/holds", post, methods=["POST"])])


def litestar_app() -> Any:
    import litestar
    from litestar import Litestar, post

    async def hold(request: Any) -> Any:
        content = work(await request.body(), request.headers.get("authorization"))
        return litestar.Response(content, media_type="application/json")

    # Litestar reads annotations at registration, from the module: give it real classes.
    hold.__annotations__ = {"request": litestar.Request, "return": litestar.Response}

    route = post("/v1/holds", status_code=200)(hold)
    return Litestar([route], request_max_body_size=10_000_000, openapi_config=None)


def falcon_app() -> Any:
    import falcon.asgi

    class Holds:
        async def on_post(self, request: Any, response: Any) -> None:
            body = await request.stream.read()
            response.data = work(body, request.get_header("authorization"))
            response.content_type = "application/json"

    app = falcon.asgi.App()
    app.add_route("/v1/holds", Holds())
    return app


def blacksheep_app() -> Any:
    from blacksheep import Application, Content, Request, Response

    app = Application()

    async def hold(request: Any) -> Any:
        found = request.get_first_header(b"authorization")
        content = work(await request.read() or b"", found.decode() if found else None)
        return Response(200, None, Content(b"application/json", content))

    hold.__annotations__ = {"request": Request, "return": Response}
    app.router.add_post("/v1/holds", hold)
    return app


APPS = {
    "starlette": starlette_app,
    "litestar": litestar_app,
    "falcon": falcon_app,
    "blacksheep": blacksheep_app,
}


def create_app() -> Any:
    return APPS[os.environ["CANDIDATE"]]()


def command(server: str, port: int) -> list[str]:
    target = "benchmarks.http_frameworks:create_app"
    if server == "uvicorn":
        return [sys.executable, "-m", "uvicorn", "--factory", target, "--port", str(port)] + [
            "--no-access-log",
            "--log-level",
            "warning",
        ]
    return [sys.executable, "-m", "granian", "--interface", "asgi", "--factory", target] + [
        "--port",
        str(port),
        "--no-log",
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wrk(port: int, body: bytes, connections: int, folder: Path) -> tuple[float, str, str]:
    script = folder / "post.lua"
    script.write_text(
        "wrk.method='POST'\n"
        f"wrk.headers['Authorization']='{KEY}'\n"
        f"local f=io.open('{folder}/body','rb')\nwrk.body=f:read('*a')\n"
    )
    (folder / "body").write_bytes(body)
    output = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", str(script)]
        + [f"http://127.0.0.1:{port}/v1/holds"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    p50 = re.search(r"50%\s+(\S+)", output)
    p99 = re.search(r"99%\s+(\S+)", output)
    assert rate and p50 and p99
    return float(rate[1]), p50[1], p99[1]


def measure(framework: str, server: str, folder: Path) -> str:
    small = msgspec.json.encode(Hold("acme", "12.5", "run-1", 60, "k" * 64))
    event = {"event_id": "e" * 20, "model": "gpt-4o", "tokens_input": 1, "run_id": "r" * 200}
    large = msgspec.json.encode([event] * 500)
    port = free_port()
    process = subprocess.Popen(command(server, port), env={**os.environ, "CANDIDATE": framework})
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        cells = []
        for body, connections in ((small, 8), (small, 64), (large, 8)):
            results = [wrk(port, body, connections, folder) for _ in range(RUNS)]
            middle = sorted(results)[RUNS // 2]
            rate = statistics.median(rate for rate, _, _ in results)
            cells.append(f"{rate:,.0f}/s {middle[1]} {middle[2]}")
        main = psutil.Process(process.pid)
        tree = [main, *main.children(recursive=True)]
        memory = sum(member.memory_info().rss for member in tree) / 1e6
        return f"| {framework} + {server} | {' | '.join(cells)} | {memory:.0f} MB |"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def main() -> None:
    import tempfile

    print("| candidate | 200 B, 8 conn: rate p50 p99 | 200 B, 64 conn | 140 KB, 8 conn | RSS |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for server in ("uvicorn", "granian"):
            for framework in APPS:
                print(measure(framework, server, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
