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


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to tell when an alert has lasted so long since it was first noticed."""

    after_seconds: int
    channels: tuple[str, ...]
    """Ids of channels."""


class Route(msgspec.Struct, frozen=True):
    """Whom to tell of what; empty conditions match everything."""

    severities: tuple[str, ...]
    kinds: tuple[str, ...]
    scope: str
    """A part of `who`, such as team=search; several are joined by commas."""
    steps: tuple[Step, ...]


class AlertState(msgspec.Struct, frozen=True):
    """What a decision about an alert rests on."""

    kind: str
    who: str
    severity: str
    is_open: bool
    noticed_at: int | None
    """Micros; when delivery first looked."""
    step: int
    """The last step that was taken; -1: none."""
    announced_severity: str
    is_acknowledged: bool
    muted_until: int
    """Micros; 0: not muted."""


class Plan(msgspec.Struct, frozen=True):
    """What to say now, to whom, and when to look again."""

    reason: str
    """opened, worse, lasting, recovered; "" says nothing."""
    step: int
    channels: tuple[str, ...]
    due_at: int | None
    """Micros; None: only a signal wakes delivery again."""


class Message(msgspec.Struct, frozen=True):
    """What is said, for every channel the same; frozen when it was decided."""

    alert_id: str
    tenant_id: str
    reason: str
    severity: str
    kind: str
    who: str
    what: str
    how_much: str
    since: str
    """RFC 3339."""
    said_at: str
    """RFC 3339."""
    next_step: str
    how_to_stop: str
    link: str


class Target(msgspec.Struct, frozen=True):
    """Where a message goes, unsealed: only in memory, while it is sent."""

    kind: str
    """webhook, email or slack."""
    address: str
    secrets: tuple[str, ...] = ()
    """Signing secrets, the newest first."""


class Result(msgspec.Struct, frozen=True):
    """What came of one try."""

    answer: int
    """The HTTP status or SMTP code; 0: none."""
    error: str = ""
    """Why it was not taken, without secrets; empty: it was."""
    retry_after_seconds: int | None = None
    is_final: bool = False
    """The receiver is gone: no further try."""
