"""What the SDK costs an application: import time, microseconds a mark, a metered call.

Run: python -m benchmarks.sdk. With TALLYSTICK_URL, _KEY, _ACCOUNT and _TENANT set, a metered
call is measured too (authorize and settle at that server, no provider). Otherwise nothing is
sent: the server is away, so a mark's cost is that of making the event and keeping it, in
memory or in the spool's file. Imports and marks are measured in CPU time, calls by the clock.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tallystick.sdk import Tallystick, tool
from tallystick.sdk.metering.answers import Reading
from tallystick.sdk.metering.bodies import read_request
from tallystick.sdk.metering.meter import begin

_NOWHERE = "http://127.0.0.1:9"
_ROUNDS = 5
_MARKS = 4000


def import_ms(statement: str) -> float:
    """Milliseconds that a fresh interpreter spends in the statement: the least of five."""
    code = f"import time; a = time.process_time(); {statement}; print(time.process_time() - a)"
    took = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(_ROUNDS)
    ]
    return min(took) * 1000


def microseconds(
    work: Callable[[], object], count: int, now: Callable[[], float] = time.process_time
) -> float:
    took = []
    for _ in range(_ROUNDS):
        started_at = now()
        for _ in range(count):
            work()
        took.append((now() - started_at) / count * 1e6)
    return statistics.median(took)


def marks(spool: Path | None) -> dict[str, float]:
    client = Tallystick(_NOWHERE, "none", spool=spool, spool_bytes_max=10**9)
    client.sender.close(0)

    def one_run() -> None:
        with client.run(workflow="w", feature="f"):
            pass

    def one_tool() -> None:
        with tool("search"):
            pass

    found = {"run": microseconds(one_run, _MARKS)}
    with client.run(workflow="w", feature="f", team="t", user="u"):
        found["tool"] = microseconds(one_tool, _MARKS)
    client.close(0)
    return found


def stream_microseconds() -> float:
    """One chunk of a stream on its way: cut, decoded and counted."""
    request = read_request("POST", "/v1/chat/completions", b'{"model":"m","stream":true}')
    assert request is not None
    chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": "word"}}]}
    line = b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    reading = Reading(request)
    return microseconds(lambda: reading.feed(line), _MARKS)


def call_ms() -> float:
    """Median milliseconds that metering adds to a call: authorize and settle, one after another."""
    request = read_request(
        "POST", "/v1/chat/completions", b'{"model":"gpt-4o","messages":[],"max_tokens":10}'
    )
    assert request is not None
    answer = b'{"usage":{"prompt_tokens":5,"completion_tokens":5}}'

    def one_call() -> None:
        metered = begin(request, "openai", None)
        metered.authorize()
        metered.reading.take_answer(answer)
        metered.settle("completed")

    return microseconds(one_call, 100, time.perf_counter) / 1000


def main() -> None:
    print("import, ms:")
    for statement in (
        "import httpx",
        "import tallystick.sdk",
        "from tallystick.sdk import Tallystick, run, tool, attempt, instrument",
        "import httpx; from tallystick.sdk import Tallystick, run, tool, attempt, instrument",
    ):
        print(f"  {import_ms(statement):7.1f}  {statement}")
    print("a mark (two events), microseconds:")
    for name, cost in marks(None).items():
        print(f"  {cost:7.1f}  {name}, in memory")
    with tempfile.TemporaryDirectory() as folder:
        for name, cost in marks(Path(folder)).items():
            print(f"  {cost:7.1f}  {name}, spool on disk")
    if os.environ.get("TALLYSTICK_URL"):
        print(f"a metered call, added ms:\n  {call_ms():7.1f}")
    print(f"a chunk of a stream, microseconds:\n  {stream_microseconds():7.1f}")


if __name__ == "__main__":
    main()
