"""Overrun response: notices work that runs away, and stops it by steps that can be undone.

Owns the watch over spend, errors and retries per scope, the mitigation ladder, planned launches
and the answer to "what drove this change". Never moves credit, never takes an automatic step
that no policy asked for. Keeps overruns, mitigations with an append-only audit trail, policies
and launches in PostgreSQL; series are in memory and rebuilt from facts and rollups.
Time: detection is in event time, mitigations start and expire by the clock.
"""

from tallystick.enforcement.overrun.guard import MitigationGuard
from tallystick.enforcement.overrun.response import OverrunResponse
from tallystick.enforcement.overrun.service import Launches, Mitigations

__all__ = ["Launches", "MitigationGuard", "Mitigations", "OverrunResponse"]
