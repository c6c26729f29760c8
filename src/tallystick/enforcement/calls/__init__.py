"""Calls: the money path of one model call.

Owns the estimate, the one hold, the settlement and the event of a call, and budgets of runs.
Never talks to a provider and never sees a prompt. Keeps nothing of its own but run budgets:
the hold's operation in the ledger has what was asked, the event in the log what was used.
Time: a call is priced as of its authorization.
"""

from tallystick.enforcement.calls.model import (
    CallAsk,
    CallPermit,
    CallReceipt,
    CallRefused,
    RunBudget,
    Usage,
)
from tallystick.enforcement.calls.prices import CallSettings
from tallystick.enforcement.calls.service import Calls

__all__ = [
    "CallAsk",
    "CallPermit",
    "CallReceipt",
    "CallRefused",
    "CallSettings",
    "Calls",
    "RunBudget",
    "Usage",
]
