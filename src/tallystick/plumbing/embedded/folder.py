"""The data folder: one owner at a time, everything inside it.

The lock is a `flock` on the file `lock`. Every child process inherits the open file, so
the folder stays owned until the last of them is gone: after `kill -9` of the parent the
next start waits a moment for the children to notice and go, and never meets an orphan.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from pathlib import Path

from tallystick.errors import DataFolderInUse

_WAIT_FOR_CHILDREN_SECONDS = 120.0
"""PostgreSQL writes a checkpoint before it goes, which takes long on a busy disk."""
_SOCKET_PATH_MAX = 100


class DataFolder:
    """A locked data folder; `lock_fd` is handed to every child process."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock_fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._acquire()
        except BaseException:
            os.close(self.lock_fd)
            raise
        os.ftruncate(self.lock_fd, 0)
        os.pwrite(self.lock_fd, f"{os.getpid()}\n".encode(), 0)

    def _acquire(self) -> None:
        deadline = time.monotonic() + _WAIT_FOR_CHILDREN_SECONDS
        while True:
            try:
                fcntl.flock(self.lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                owner = self._owner()
                is_alive = _is_alive(owner)
                if is_alive or time.monotonic() > deadline:
                    holder = f"process {owner}" if is_alive else f"what process {owner} left behind"
                    raise DataFolderInUse(
                        f"{self.path} is in use by {holder}; "
                        "stop that one, or choose another folder with --data"
                    ) from None
            time.sleep(0.05)

    def _owner(self) -> int:
        text = os.pread(self.lock_fd, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0

    def socket_folder(self) -> Path:
        """A folder whose path is short enough for a Unix socket (107 bytes on Linux)."""
        inside = self.path / "run"
        if len(os.fsencode(inside)) > _SOCKET_PATH_MAX - len("/.s.PGSQL.5432"):
            return Path(tempfile.mkdtemp(prefix="tallystick-"))
        inside.mkdir(exist_ok=True, mode=0o700)
        return inside

    def scratch_folder(self) -> Path:
        """An empty folder for temporary files of the stores."""
        scratch = self.path / "scratch"
        scratch.mkdir(exist_ok=True, mode=0o700)
        for leftover in scratch.iterdir():
            with contextlib.suppress(OSError):
                leftover.unlink()
        return scratch

    def close(self) -> None:
        """Give the folder up."""
        os.close(self.lock_fd)


def _is_alive(pid: int) -> bool:
    if pid <= 0 or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _is_not_zombie(pid)


def _is_not_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[:1] != ["Z"]
