"""Compares locked requirements with known advisories: `make audit`.

A weakness that is known fails. Where the advisory service cannot be reached nothing is known:
that is said loudly and is no failure, so that a build without a network still goes on. With
TALLYSTICK_AUDIT_REQUIRED=1 it is a failure too.
"""

from __future__ import annotations

import os
import subprocess
import sys

_SECONDS = 300
_UNREACHABLE = ("ServiceError", "ConnectionError", "could not connect", "Max retries", "timed out",
    "HTTPError", "Failed to resolve", "upgrading pip to get more information")  # fmt: skip

_SKIPPED = "could not be audited"


def main(path: str) -> int:
    """Return the exit status."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", path, "--disable-pip"]
    command += ["--require-hashes", "--progress-spinner", "off"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return _not_run("the advisory service did not answer in time")
    sys.stdout.write(done.stdout)
    skipped = done.stdout.count(_SKIPPED)
    if done.returncode == 0 and skipped:
        return _not_run(f"the advisory service knows nothing of {skipped} requirements")
    if done.returncode == 0:
        sys.stdout.write(done.stderr)
        return 0
    if not done.stdout.strip() and any(sign in done.stderr for sign in _UNREACHABLE):
        return _not_run(done.stderr.strip().splitlines()[-1][:300])
    sys.stderr.write(done.stderr)
    return 1


def _not_run(reason: str) -> int:
    line = "!" * 79
    sys.stderr.write(f"{line}\nTHE DEPENDENCY AUDIT DID NOT RUN: {reason}\n{line}\n")
    return int(os.environ.get("TALLYSTICK_AUDIT_REQUIRED") == "1")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
