"""A process that owns a chDB folder and answers over HTTP: the ClickHouse of tests.

Run as a program: python -m tests.chdb_server FOLDER KEY [PORT]; prints its port and ends with its
parent. One that was killed comes back on its port.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tallystick.plumbing.embedded.child import spawn, take_stop_signals
from tallystick.plumbing.embedded.clickhouse import ChdbEndpoint


def main() -> None:
    folder, key = Path(sys.argv[1]), sys.argv[2]
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    wait_for_stop = take_stop_signals()
    endpoint = ChdbEndpoint(folder, key=key, port=port)
    endpoint.start()
    print(endpoint.port, flush=True)  # noqa: T201
    wait_for_stop()
    endpoint.stop()


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the program on a folder; yield its process and URL, and end it."""
    process = spawn(
        [sys.executable, "-m", "tests.chdb_server", str(folder), "key"],
        on_parent_death=signal.SIGKILL,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield process, f"http://tallystick:key@127.0.0.1:{int(process.stdout.readline())}/"
    finally:
        process.terminate()
        process.communicate(timeout=60)


if __name__ == "__main__":
    main()
