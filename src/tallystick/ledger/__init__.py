"""The ledger: credits, moved by double entry and never edited.

Owns accounts, lots of granted credit, holds, leases, limits, charges, refunds, expiry and
the one charge a run. Never knows events, tokens or prices: it is given units. Keeps every
operation for ever, declines too. Time: `posted_at` is taken under the locks of the accounts
it moves.
"""

from tallystick.ledger.intake import UNITS_MAX
from tallystick.ledger.model import (
    Account,
    Balance,
    Bucket,
    CaptureRequest,
    ChargeRequest,
    DueRequest,
    EntryView,
    ExtendRequest,
    GrantRequest,
    Hold,
    HoldRequest,
    HoldStory,
    LeaseRequest,
    Limit,
    LimitPart,
    Outcome,
    RefundRequest,
    ReleaseRequest,
    ReportRequest,
    Request,
    ReturnRequest,
    RunCharge,
    RunChargeOutcome,
    RunTarget,
    StartRequest,
    Violation,
)
from tallystick.ledger.service import Ledger

__all__ = [
    "UNITS_MAX",
    "Account",
    "Balance",
    "Bucket",
    "CaptureRequest",
    "ChargeRequest",
    "DueRequest",
    "EntryView",
    "ExtendRequest",
    "GrantRequest",
    "Hold",
    "HoldRequest",
    "HoldStory",
    "LeaseRequest",
    "Ledger",
    "Limit",
    "LimitPart",
    "Outcome",
    "RefundRequest",
    "ReleaseRequest",
    "ReportRequest",
    "Request",
    "ReturnRequest",
    "RunCharge",
    "RunChargeOutcome",
    "RunTarget",
    "StartRequest",
    "Violation",
]
