"""What a process that serves or works sets for itself before it opens anything."""

from __future__ import annotations

import logging
import resource
from contextlib import suppress


def prepare_process() -> None:
    """Log warnings with their time, and take as many open files as the system grants.

    The usual 1,024 are too few: each model call under way holds two connections.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems grant less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
