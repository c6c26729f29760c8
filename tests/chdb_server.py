"""A process that owns a chDB folder and answers over HTTP: the ClickHouse of tests.

Run as a program: python -m tests.chdb_server FOLDER KEY [PORT]; prints its port and ends with its
parent. One that was killed comes back on its port.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from tallystick.plumbing.embedded.clickhouse import ChdbEndpoint


def main() -> None:
    folder, key = Path(sys.argv[1]), sys.argv[2]
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    endpoint = ChdbEndpoint(folder, key=key, port=port)
    endpoint.start()
    print(endpoint.port, flush=True)  # noqa: T201
    stop.wait()
    endpoint.stop()


if __name__ == "__main__":
    main()
