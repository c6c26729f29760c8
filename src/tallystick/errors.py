"""The exception tree: failures, never expected outcomes.

TallystickError
├── InvalidInput          the caller must change the request (400)
│   ├── BodyTooLarge      (413)
│   ├── BodyUnreadable    (400)
│   └── UnsupportedForm   (415)
├── Unrepairable          a broken message is still broken after the fix (422)
├── NotFound              (404)
├── Conflict              same key, other content (409)
├── Unauthorized          (401)
├── Forbidden             (403)
├── Blocked               a mitigation or policy forbids the work (402)
├── TooManyRequests       over a rate limit (429, retryable)
├── SlowDown              a queue is full; try again later (503, retryable)
│   └── Raced             another request changed the same rows; decided again
├── StoreUnavailable      a store cannot be reached (503, retryable)
├── TooManyBroken         most of what a producer sends cannot be read; the follower stops
├── DataFolderInUse       another process owns the data folder
├── ReaderDisplaced       another process reads under the same name
└── InvariantBroken       what must always hold did not (500)
    └── PositionLost      the log no longer has what a follower has yet to read

Each class carries `code` (stable, for machines), `http_status` and `retryable`;
the message says which field is wrong and how to mend it.
"""

from __future__ import annotations


class TallystickError(Exception):
    """The root of every failure that the product raises itself."""

    code = "internal_error"
    http_status = 500
    retryable = False

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        if code is not None:
            self.code = code


class InvalidInput(TallystickError):
    """The request cannot be understood or is out of bounds."""

    code = "invalid_input"
    http_status = 400


class BodyTooLarge(InvalidInput):
    """The request body is over the size limit."""

    code = "body_too_large"
    http_status = 413


class BodyUnreadable(InvalidInput):
    """The request body as a whole cannot be decoded."""

    code = "body_unreadable"


class UnsupportedForm(InvalidInput):
    """The content type or encoding is not one that this route takes."""

    code = "unsupported_media_type"
    http_status = 415


class Unrepairable(TallystickError):
    """A broken message would still be broken with these fields; nothing was changed."""

    code = "unrepairable"
    http_status = 422


class NotFound(TallystickError):
    """What the request names does not exist."""

    code = "not_found"
    http_status = 404


class Conflict(TallystickError):
    """The same key was used before with other content."""

    code = "idempotency_conflict"
    http_status = 409


class Unauthorized(TallystickError):
    """The request carries no valid key or token."""

    code = "unauthorized"
    http_status = 401


class Forbidden(TallystickError):
    """The key is valid but may not do this."""

    code = "forbidden"
    http_status = 403


class Blocked(TallystickError):
    """A mitigation or policy forbids the work; `decided_by` names it."""

    code = "blocked"
    http_status = 402

    def __init__(self, message: str, *, decided_by: str, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.decided_by = decided_by


class TooManyRequests(TallystickError):
    """Over a rate limit; nothing was done; try again after `retry_after_seconds`."""

    code = "rate_limited"
    http_status = 429
    retryable = True

    def __init__(self, message: str, *, decided_by: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.decided_by = decided_by
        self.retry_after_seconds = retry_after_seconds


class SlowDown(TallystickError):
    """A queue is full; nothing was stored; try again later."""

    code = "slow_down"
    http_status = 503
    retryable = True
    retry_after_seconds = 1


class Raced(SlowDown):
    """Another request changed the same rows meanwhile; nothing was stored; decided again."""

    code = "raced"


class StoreUnavailable(TallystickError):
    """A store cannot be reached; nothing was stored; try again later."""

    code = "store_unavailable"
    http_status = 503
    retryable = True
    retry_after_seconds = 2


class TooManyBroken(TallystickError):
    """Most of the last messages of a partition are broken; its follower stops and alarms."""

    code = "too_many_broken"


class DataFolderInUse(TallystickError):
    """Another process owns the data folder."""

    code = "data_folder_in_use"


class ReaderDisplaced(TallystickError):
    """Another process reads under the same name; this one must stop."""

    code = "reader_displaced"


class InvariantBroken(TallystickError):
    """What must always hold did not; the lane stops rather than guess."""

    code = "invariant_broken"


class PositionLost(InvariantBroken):
    """The log no longer has what a follower has yet to read; it stops rather than skip it."""

    code = "position_lost"


class LeaseLost(TallystickError):
    """Another process has taken over; nothing was stored; what is in memory is forgotten."""

    code = "lease_lost"
    retryable = True
