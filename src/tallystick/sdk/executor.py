"""A pool of threads that carries the place of the work into its threads.

Apart from `context`, so that who needs no pool does not load one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from tallystick.sdk.context import carry

P = ParamSpec("P")
T = TypeVar("T")


class CarryingExecutor(ThreadPoolExecutor):
    """A pool of threads whose work stands where it was submitted."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Submit work under the run and attempt of the caller."""
        return super().submit(carry(fn), *args, **kwargs)
