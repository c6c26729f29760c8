"""The Policy Vault: what was spent, counted from the usage log independently of analytics.

Owns spend by scope and quarter of an hour, quotas (assigned, spent, held, remaining) and what
usage that never asked counts against budgets. Never decides on a hold: that is the ledger's,
in the same transaction as credits. Keeps sums and positions in PostgreSQL, moved together, and
rebuilt byte for byte by a replay. Time: an event counts in the bucket of when it occurred.
"""

from tallystick.enforcement.vault.counting import Counting
from tallystick.enforcement.vault.model import (
    Assignment,
    Assignments,
    Cells,
    NoAssignments,
    Spent,
    Threshold,
    UsageCounter,
)
from tallystick.enforcement.vault.rules import fold
from tallystick.enforcement.vault.seen import Seen
from tallystick.enforcement.vault.service import Quotas
from tallystick.enforcement.vault.signals import Thresholds
from tallystick.enforcement.vault.store import VaultStore

__all__ = [
    "Assignment",
    "Assignments",
    "Cells",
    "Counting",
    "NoAssignments",
    "Quotas",
    "Seen",
    "Spent",
    "Threshold",
    "Thresholds",
    "UsageCounter",
    "VaultStore",
    "fold",
]
