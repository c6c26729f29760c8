"""What the SDK raises into an application, beside the kernel's errors.

LimitReached   a limit or an empty account forbids the call (402 or 429 at the server)
Unreachable    Tallystick cannot be reached; the policy `on_unreachable` decides what follows
SpoolFull      what waits for the server has reached its bound; nothing was dropped
"""

from __future__ import annotations

from tallystick.errors import SlowDown, StoreUnavailable, TallystickError


class LimitReached(TallystickError):
    """A limit forbids the work; `decided_by` names it, `retry` is "wait" or "never".

    With an `operation_id` the server explains it: `GET /v1/refusals/{operation_id}`.
    """

    code = "limit_reached"
    http_status = 402

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        decided_by: str = "",
        retry: str = "never",
        available: str = "",
        retry_after_seconds: float = 0.0,
        operation_id: str = "",
    ) -> None:
        super().__init__(message, code=code)
        self.decided_by = decided_by
        self.operation_id = operation_id
        self.retry = retry
        self.available = available
        self.retry_after_seconds = retry_after_seconds


class Unreachable(StoreUnavailable):
    """Tallystick gave no answer; `may_have_arrived` when the request had left this machine."""

    code = "unreachable"

    def __init__(
        self, message: str, *, may_have_arrived: bool = True, retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived
        self.wait_seconds = retry_after_seconds


class SpoolFull(SlowDown):
    """What waits for the server has reached its bound; the event was not taken."""

    code = "spool_full"
