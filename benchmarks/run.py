"""Every program of this folder that gives figures, one after the other.

    make bench                      all of them, the peers too
    make bench ARGS=serve           one: serve, gateway, pipeline, budgets...
    make bench ARGS="serve idle"    a part of one; what follows the name is the program's own

Method. Each program says its own in its first lines, runs alone in a process of its own and
prints its figures. What it prints is kept in `results/latest/<name>.txt` with the machine,
the command, the load before it and how long it took. What was learned from figures stands in
`results/<name>.md`, which no program writes. A program that fails does not stop those after it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil

LATEST = Path(__file__).parent / "results" / "latest"
PROGRAMS = (
    *("gateway", "peers", "pipeline", "serve", "archive", "calls", "http_clients", "access"),
    *("rates", "sdk", "otlp", "budgets", "vault", "ledger", "sizes", "overrun"),
)


def machine() -> str:
    memory_gib = psutil.virtual_memory().total / 2**30
    return (
        f"{psutil.cpu_count()} cores ({platform.machine()}), {memory_gib:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}, "
        f"load average before {os.getloadavg()[0]:.1f}"
    )


def run(name: str, arguments: list[str]) -> bool:
    """Run one program and keep what it prints; false when it failed."""
    words = ["-m", f"benchmarks.{name}", *arguments]
    head = f"python {' '.join(words)}\n{machine()}\n"
    print(f"\n== {head}", flush=True)
    began = time.monotonic()
    text = ""
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as program:
        assert program.stdout is not None
        for line in program.stdout:
            text += line
            print(line, end="", flush=True)
    took = f"{time.monotonic() - began:.0f} s, exit code {program.returncode}"
    print(f"-- {took}", flush=True)
    if not arguments:
        LATEST.mkdir(exist_ok=True)
        (LATEST / f"{name}.txt").write_text(f"{head}{took}\n\n{text}", "utf-8")
    return program.returncode == 0


def main(words: list[str]) -> int:
    if words and words[0] not in PROGRAMS:
        print(f"no program {words[0]!r}; there are: {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    chosen = words[:1] or PROGRAMS
    failed = [name for name in chosen if not run(name, words[1:])]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
