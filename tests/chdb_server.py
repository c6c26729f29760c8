"""A process that owns a chDB folder and answers over HTTP: the ClickHouse of tests.

Run as a program: python -m tests.chdb_server FOLDER KEY [PORT]; prints its port and ends with its
parent. One that was killed comes back on its port.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tallystick.plumbing.embedded.child import take_stop_signals
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


if __name__ == "__main__":
    main()
