"""What a process sets for itself."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
from tallystick.cli.process import prepare_process
prepare_process()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""


def test_a_process_takes_as_many_open_files_as_it_may() -> None:
    """Systems start programs with a few; a thousand calls under way need twice as many."""
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (answer.stdout, answer.returncode) == ("True\n", 0), answer.stderr
