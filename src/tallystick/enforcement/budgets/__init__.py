"""Budgets: how much a scope may use in a window, decided before work is made.

Owns what people set, its revisions, which budgets match an attribution, and the windows that
somebody worked in. Never counts: the ledger does, in the limit window of the same id, so that
a cap cannot be raced. Keeps every revision for ever. Time: a window is the one of the moment
when the work is asked for; its later capture counts there too. An edit reaches every process
within `EDIT_SECONDS_MAX`, and the capacity of windows under way at once.
"""

from tallystick.enforcement.budgets.matching import EDIT_SECONDS_MAX, ActiveBudgets, WindowPart
from tallystick.enforcement.budgets.model import (
    Budget,
    BudgetTerms,
    Threshold,
    WindowView,
)
from tallystick.enforcement.budgets.service import Budgets

__all__ = [
    "EDIT_SECONDS_MAX",
    "ActiveBudgets",
    "Budget",
    "BudgetTerms",
    "Budgets",
    "Threshold",
    "WindowPart",
    "WindowView",
]
