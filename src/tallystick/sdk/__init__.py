"""What an application imports: its runs, attempts, tools and model calls, on the record.

Owns the marks of work (`run`, `attempt`, `tool`, `usage`), the metering of the official
provider clients (`instrument`: authorize, call, settle), the local spool, the middleware for
ASGI, and the client of leases. Never decides what the server would decide otherwise; never
stores prompts or answers. Keeps what is owed to the server in its spool, nothing else. Time
and ids come from the kernel; each event's are fixed when it is recorded. Imports the kernel
only, and what is heavy (httpx) with its first use: names are loaded when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallystick.sdk.asgi import TallystickMiddleware
    from tallystick.sdk.client import (
        AsyncTallystick,
        Tallystick,
        default_client,
        set_default_client,
    )
    from tallystick.sdk.context import carry, propagated_headers
    from tallystick.sdk.errors import LimitReached, SpoolFull, Unreachable
    from tallystick.sdk.executor import CarryingExecutor
    from tallystick.sdk.leases import HttpLeases, LeasedCredit, Leases, LeaseTerms, Permit
    from tallystick.sdk.metering import instrument
    from tallystick.sdk.reported import usage
    from tallystick.sdk.spans import Attempt, Run, Tool, attempt, run, tool

_HOMES = {
    "asgi": "TallystickMiddleware",
    "client": "AsyncTallystick Tallystick default_client set_default_client",
    "context": "carry propagated_headers",
    "errors": "LimitReached SpoolFull Unreachable",
    "executor": "CarryingExecutor",
    "leases": "HttpLeases LeaseTerms LeasedCredit Leases Permit",
    "metering": "instrument",
    "reported": "usage",
    "spans": "Attempt Run Tool attempt run tool",
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AsyncTallystick",
    "Attempt",
    "CarryingExecutor",
    "HttpLeases",
    "LeaseTerms",
    "LeasedCredit",
    "Leases",
    "LimitReached",
    "Permit",
    "Run",
    "SpoolFull",
    "Tallystick",
    "TallystickMiddleware",
    "Tool",
    "Unreachable",
    "attempt",
    "carry",
    "default_client",
    "instrument",
    "propagated_headers",
    "run",
    "set_default_client",
    "tool",
    "usage",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    return found
