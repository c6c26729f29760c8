"""Child processes that cannot outlive us.

On Linux the kernel sends a chosen signal to a child when its parent dies
(`prctl(PR_SET_PDEATHSIG)`), even after `kill -9`. PostgreSQL refuses to run as uid 0;
when we are root it starts in a user namespace in which our uid is mapped to an ordinary
one: no account is made, no file changes owner, and folders closed to others still work.
Where user namespaces are forbidden, it falls back to the account `nobody`.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


def spawn(
    command: Sequence[str],
    *,
    keep_open: Sequence[int] = (),
    on_parent_death: signal.Signals,
    unprivileged: bool = False,
    stdout: int | None = None,
    stderr: int | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child that gets `on_parent_death` when this process dies.

    `unprivileged` runs it under an ordinary uid when we are root. Must be called from the
    main thread: the kernel ties the signal to the thread that forked.
    """
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=tuple(keep_open),
        env=environment,
        preexec_fn=_preparation(on_parent_death, unprivileged),
    )


def _preparation(on_parent_death: signal.Signals, unprivileged: bool) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)
    nobody = pwd.getpwnam("nobody") if unprivileged and os.geteuid() == 0 else None
    parent = os.getpid()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if nobody is not None and not _enter_user_namespace(libc, nobody.pw_uid):
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, int(on_parent_death), 0, 0, 0)
            if os.getppid() != parent:  # it died before the wish was known
                os._exit(1)

    return prepare


def _enter_user_namespace(libc: ctypes.CDLL, uid: int) -> bool:
    if libc.unshare(_CLONE_NEWUSER) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} 0 1")
    Path("/proc/self/gid_map").write_text(f"{uid} 0 1")
    return True


def user_namespaces_allowed() -> bool:
    """Tell whether a root process here may start children in a user namespace."""
    probe = subprocess.run(
        [sys.executable, "-c", "import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(1<<28))"],
        check=False,
        capture_output=True,
    )
    return probe.returncode == 0


def take_stop_signals() -> Callable[[], None]:
    """Take SIGTERM and SIGINT from now on; what is returned waits for one of them.

    Call both in the main thread. The kernel may give a signal to any thread, and nothing but this
    pipe wakes the main one then: it would sleep on in an Event or a lock.
    """
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: None)

    def wait() -> None:
        os.read(receiving, 1)

    return wait
