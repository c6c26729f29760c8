"""Alerts' words."""

from __future__ import annotations

import msgspec

SEVERITIES = ("info", "warning", "critical")
"""From the least to the worst."""


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """Something that someone should know; raised again and again while it lasts.

    `signal_id` is the identity by which repeats are known. Texts are for people; they never
    hold content.
    """

    signal_id: str
    """Such as budget:<budget id>/<window>/0.8 or burn:<scope>/<window>."""
    tenant_id: str
    kind: str
    """budget, burn_rate, outlier, error_storm, retry_storm, mitigation or follower."""
    severity: str
    """info, warning or critical."""
    who: str
    """The scope: team=search, key=key_9f2c."""
    what: str
    how_much: str
    since: int
    """Micros."""
    next_step: str
    """What will happen if nobody acts."""
    how_to_stop: str
    at: int
    """Micros."""
