"""What the engine is told when it starts; apart, so that its parent need not load it."""

from __future__ import annotations

import msgspec


class EngineOptions(msgspec.Struct, frozen=True):
    """What the parent wants; travels as JSON in TALLYSTICK_ENGINE."""

    postgres_url: str
    clickhouse_url: str
    """chdb:///folder, or a server."""
    endpoint_key: str
    archive_url: str
    """A folder or s3://bucket/prefix."""
    archive_days: int
    archive_flush_seconds: int
    endpoint_port: int = 0
    """0 takes a free port; a restart takes the port that others know."""
    has_wipe: bool = False
    """Delete derived data first, so that everything is rebuilt from the log."""
    is_restoring: bool = False
    """Rebuild from the archive as far as it goes, then from the log."""
