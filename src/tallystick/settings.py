"""Settings: flags over `TALLYSTICK_*` variables over one TOML file over defaults."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tallystick.errors import InvalidInput

_PREFIX = "TALLYSTICK_"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be set; each name is also a variable TALLYSTICK_<NAME>."""

    host: str = "127.0.0.1"
    port: int = 8787
    data: str = ".tallystick"
    """The data folder of the embedded stores."""
    postgres_url: str = ""
    """A PostgreSQL of your own; empty starts the embedded one."""
    clickhouse_url: str = ""
    """A ClickHouse of your own (http://user:secret@host:port/); empty uses chDB."""
    clickhouse_cluster: str = ""
    """The name of a ClickHouse cluster: tables are then made ON CLUSTER and replicated."""
    admin_key: str = ""
    """The bootstrap admin key; empty makes one on loopback (admin.key in the data folder)."""
    hash_user_ids: bool = False
    """Replace user_id by a keyed hash before anything is stored."""
    kafka_brokers: str = ""
    """host:port,... of Apache Kafka; empty keeps the log in PostgreSQL."""
    kafka_topic: str = "ml-agents"
    kafka_broken_topic: str = "ml-agents-broken-msg"
    kafka_broken_by: str = "sink"
    """Which follower writes that topic: sink, or vault where no sink runs."""
    kafka_properties: str = ""
    """Further properties of the Kafka client as one JSON object (docs/kafka.md)."""
    kafka_partitions: int = 12
    kafka_replication: int = 3
    """Partitions and replicas of topics that `migrate` makes."""
    access_key: str = ""
    """The secret under which API keys are hashed and signing keys sealed, the same for all
    processes; empty: made from redaction_key, else the data folder's own."""
    public_url: str = ""
    """Where callers reach this: the issuer of our tokens; empty: http://host:port."""
    allow_private_addresses: bool = False
    """Let webhooks and identity providers be reached by http and at private addresses: those
    inside one's own network."""
    redaction_key: str = ""
    """The key of content hashes, the same for all processes; empty: the data folder's own."""
    instance_id: str = ""
    """The name of a worker among those of its role, the same after a restart; empty: the host's."""
    lease_seconds: float = 30.0
    """What the death of a worker costs in freshness."""
    engine_silent_seconds: int = 120
    """How long the engine of `serve` may give no sign of life before it is killed and started
    again; 0: for ever, for a debugger."""
    archive_url: str = ""
    """Where raw events are archived: a folder or s3://bucket/prefix; empty: `archive` in the
    data folder."""
    archive_days: int = 90
    """Days after which archived events are deleted; 0 keeps them for ever."""
    facts_days: int = 0
    """Days that facts are kept at least; months that are older expire (docs/expiry.md). 0, or from
    90 on; 800 is two years and some. Charges, rollups and runs are kept for ever."""
    archive_flush_seconds: int = 60
    """How long an event may wait for its archive object; shorter makes more, smaller objects."""
    gateway_config: str = ""
    """A TOML file with the gateway's upstreams and routes (docs/gateway.md); empty takes
    OPENAI_API_KEY and ANTHROPIC_API_KEY of the environment."""
    allow_unpriced_models: bool = False
    """Let calls of models that no rate card prices through; they cost nothing until one does."""
    output_tokens_at_first: int = 4_096
    """Output to hold credit for when a call names no maximum and nothing is known of its model."""
    output_tokens_ceiling: int = 32_768
    """The most output to hold credit for when a call names no maximum."""
    smtp_url: str = ""
    """The mail server of alerts: smtp://user:secret@host:587?starttls=1 or smtps://host."""
    smtp_from: str = "tallystick@localhost"
    """The sender of mails."""
    redis_url: str = ""
    """Redis or Valkey for rate limits that several API processes share; empty: PostgreSQL."""

    @property
    def data_folder(self) -> Path:
        """The data folder as a path."""
        return Path(self.data).expanduser()

    @property
    def archive_place(self) -> str:
        """The archive's URL, or its folder in the data folder."""
        return self.archive_url or str(self.data_folder.absolute() / "archive")


def load_settings(
    flags: Mapping[str, object], environment: Mapping[str, str], file: Path | None = None
) -> Settings:
    """Merge the sources; raise InvalidInput naming what is unknown or of the wrong type.

    >>> load_settings({"port": 1}, {"TALLYSTICK_PORT": "2", "TALLYSTICK_HOST": "::1"}).port
    1
    """
    merged: dict[str, Any] = {}
    if file is not None:
        try:
            merged.update(tomllib.loads(file.read_text("utf-8")))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise InvalidInput(f"settings file {file}: {error}", field="config") from error
    for name in Settings.__struct_fields__:
        if (text := environment.get(_PREFIX + name.upper())) is not None:
            merged[name] = text
    merged.update({name: value for name, value in flags.items() if value is not None})
    try:
        return msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"settings: {error}", code="bad_setting") from error
