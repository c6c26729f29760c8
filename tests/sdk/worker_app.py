"""An application that records its runs in workers of every kind, without a spool on disk."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from tallystick.sdk import run

KINDS = ("fork", "spawn", "forkserver", "pool", "os")


def work(name: str) -> None:
    with run(run_id=f"worker-{name}"):
        pass


def main() -> None:
    """Work once in each kind of worker, all children of a process that has a client too."""
    work("parent")
    methods: tuple[Any, ...] = ("fork", "spawn", "forkserver")
    for method in methods:
        process = multiprocessing.get_context(method).Process(target=work, args=(method,))
        process.start()
        process.join()
        assert process.exitcode == 0
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        pool.submit(work, "pool").result()
    if os.fork() == 0:
        work("os")
        sys.exit(0)
    os.wait()


if __name__ == "__main__":
    main()
