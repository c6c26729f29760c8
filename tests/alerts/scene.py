"""What tests of alerts share."""

from __future__ import annotations

from tallystick.clock import MINUTE
from tallystick.enforcement.alerts import Signal

NOW = 1_764_000_000_000_000

SIGNAL = Signal(
    signal_id="budget:b1/2026-11/0.8",
    tenant_id="acme",
    kind="budget",
    severity="warning",
    who="team=search",
    what="has used 80 percent of its monthly budget",
    how_much="80.50 of 100 USD",
    since=NOW - 5 * MINUTE,
    next_step="at 100 percent its calls are refused",
    how_to_stop="raise the budget or stop the nightly evaluation",
    at=NOW,
)
