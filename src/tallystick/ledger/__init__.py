"""The ledger: credits, moved by double entry and never edited.

Owns accounts, lots of granted credit, charges, refunds, expiry and the one charge a run.
Never knows events, tokens or prices: it is given units. Keeps every operation for ever,
declines too. Time: `posted_at` is taken under the locks of the accounts it moves.
"""

from tallystick.ledger.model import (
    Account,
    Balance,
    Bucket,
    ChargeRequest,
    EntryView,
    GrantRequest,
    Outcome,
    RefundRequest,
    RunCharge,
    RunChargeOutcome,
    RunTarget,
    Violation,
)
from tallystick.ledger.service import Ledger

__all__ = [
    "Account",
    "Balance",
    "Bucket",
    "ChargeRequest",
    "EntryView",
    "GrantRequest",
    "Ledger",
    "Outcome",
    "RefundRequest",
    "RunCharge",
    "RunChargeOutcome",
    "RunTarget",
    "Violation",
]
