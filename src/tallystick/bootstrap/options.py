"""From settings to what workers are given."""

from __future__ import annotations

import platform
import secrets

import msgspec

from tallystick.bounds import FACTS_DAYS_MIN
from tallystick.enforcement.alerts.sending import read_mail_server
from tallystick.errors import InvalidInput
from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.log.kafka import KafkaOptions
from tallystick.plumbing.objects import open_objects
from tallystick.settings import Settings
from tallystick.workers.options import EngineOptions


def engine_options(
    settings: Settings, folder: DataFolder, postgres_url: str, secret: str
) -> EngineOptions:
    """What the engine of `serve` is given."""
    read_mail_server(settings.smtp_url)
    open_objects(settings.archive_place)  # what is wrong with its URL is said here, not in a log
    return EngineOptions(
        postgres_url=postgres_url,
        clickhouse_url=settings.clickhouse_url or f"chdb://{folder.path / 'clickhouse'}",
        endpoint_key=secrets.token_urlsafe(24),
        data=str(folder.path),
        kafka=kafka_of(settings),
        broken_by=broken_by(settings),
        redaction_key=secret,
        hash_user_ids=settings.hash_user_ids,
        instance_id=settings.instance_id or "serve",
        lease_seconds=settings.lease_seconds,
        archive_url=settings.archive_place,
        archive_days=settings.archive_days,
        archive_flush_seconds=settings.archive_flush_seconds,
        facts_days=facts_days(settings),
        clickhouse_cluster=settings.clickhouse_cluster,
        public_url=settings.public_url,
        smtp_url=settings.smtp_url,
        smtp_from=settings.smtp_from,
        allow_private_addresses=settings.allow_private_addresses,
    )


def broken_by(settings: Settings) -> str:
    """Which follower sets broken messages aside."""
    if settings.kafka_broken_by not in ("sink", "vault"):
        raise InvalidInput("kafka_broken_by must be sink or vault", field="kafka_broken_by")
    return settings.kafka_broken_by


def facts_days(settings: Settings) -> int:
    """How long facts are kept; 0 is for ever."""
    if settings.facts_days and settings.facts_days < FACTS_DAYS_MIN:
        raise InvalidInput(
            f"TALLYSTICK_FACTS_DAYS is {settings.facts_days}: facts are kept {FACTS_DAYS_MIN} days "
            f"or longer; set it to at least {FACTS_DAYS_MIN}, or to 0 to keep them for ever",
            code="bad_setting",
            field="facts_days",
        )
    return settings.facts_days


def kafka_of(settings: Settings) -> KafkaOptions | None:
    """Which Kafka is the log; None when it is in PostgreSQL."""
    if not settings.kafka_brokers:
        return None
    try:
        properties = msgspec.json.decode(settings.kafka_properties or "{}", type=dict[str, str])
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"kafka_properties must be a JSON object of strings: {error}", field="kafka_properties"
        ) from error
    return KafkaOptions(
        brokers=settings.kafka_brokers,
        topic=settings.kafka_topic,
        broken_topic=settings.kafka_broken_topic,
        properties=properties,
    )


def require_urls(settings: Settings) -> None:
    """The distributed form shares stores: raise InvalidInput naming what is not given."""
    for name in ("postgres_url", "clickhouse_url", "kafka_brokers", "redaction_key"):
        if not getattr(settings, name):
            raise InvalidInput(
                f"TALLYSTICK_{name.upper()} must be set: the processes of the distributed form "
                "share it",
                code="setting_missing",
                field=name,
            )


def worker_options(settings: Settings) -> EngineOptions:
    """What a worker of the distributed form is given."""
    require_urls(settings)
    return EngineOptions(
        postgres_url=settings.postgres_url,
        clickhouse_url=settings.clickhouse_url,
        endpoint_key="",
        data=str(settings.data_folder),
        kafka=kafka_of(settings),
        broken_by=broken_by(settings),
        redaction_key=settings.redaction_key,
        hash_user_ids=settings.hash_user_ids,
        instance_id=settings.instance_id or platform.node(),
        lease_seconds=settings.lease_seconds,
        is_shared=True,
        archive_url=settings.archive_url,
        archive_days=settings.archive_days,
        archive_flush_seconds=settings.archive_flush_seconds,
        facts_days=facts_days(settings),
        clickhouse_cluster=settings.clickhouse_cluster,
        public_url=settings.public_url,
        smtp_url=settings.smtp_url,
        smtp_from=settings.smtp_from,
        allow_private_addresses=settings.allow_private_addresses,
    )
