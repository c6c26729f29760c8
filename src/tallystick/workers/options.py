"""What the engine is told when it starts; apart, so that its parent need not load it."""

from __future__ import annotations

import msgspec

from tallystick.plumbing.leases import LEASE_SECONDS
from tallystick.plumbing.log.kafka import KafkaOptions


class EngineOptions(msgspec.Struct, frozen=True):
    """What the parent wants; travels as JSON in TALLYSTICK_ENGINE."""

    postgres_url: str
    clickhouse_url: str
    """chdb:///folder, or a server."""
    endpoint_key: str
    endpoint_port: int = 0
    """0 takes a free port; a restart takes the port that others know."""
    data: str = ""
    """The folder of what can be rebuilt: the deduplication indexes."""
    kafka: KafkaOptions | None = None
    """The log; None is the one in PostgreSQL."""
    broken_by: str = "sink"
    """Which follower writes the topic of broken messages: exactly one does."""
    redaction_key: str = ""
    hash_user_ids: bool = False
    instance_id: str = "serve"
    """The name of this process among those of its role; the same after a restart."""
    lease_seconds: float = LEASE_SECONDS
    is_shared: bool = False
    """Other processes may do the same work: leases say who does what."""
    archive_url: str = ""
    """A folder or s3://bucket/prefix."""
    archive_days: int = 0
    archive_flush_seconds: int = 60
    facts_days: int = 0
    clickhouse_cluster: str = ""
    public_url: str = ""
    smtp_url: str = ""
    smtp_from: str = ""
    allow_private_addresses: bool = False
    """What the delivery of alerts is given (docs/alerts.md)."""
    has_wipe: bool = False
    """Delete derived data first, so that everything is rebuilt from the log."""
    is_restoring: bool = False
    """Rebuild from the archive as far as it goes, then from the log."""
