"""Kafka's settings: what is passed on, what is refused, what AWS needs."""

from __future__ import annotations

import sys

import pytest

from tallystick.errors import InvalidInput
from tallystick.plumbing.log.kafka import KafkaOptions, KafkaWriter, check_topic
from tallystick.plumbing.log.kafka.options import configure, connect, import_client
from tallystick.plumbing.log.kafka.topics import TopicState

SAFE = TopicState(12, 3, 2, 14 * 24 * 3600 * 1000, "LogAppendTime", 1_048_588, "delete")


def configured(**properties: str) -> dict[str, object]:
    named = {name.replace("_", "."): value for name, value in properties.items()}
    return configure(KafkaOptions("broker:9092", properties=named), {"linger.ms": 5}, {"acks": -1})


def test_tls_and_sasl_are_passed_on() -> None:
    made = configured(
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="tallystick",
        sasl_password="secret",
        ssl_ca_location="/etc/ssl/kafka.pem",
    )
    assert made["security.protocol"] == "SASL_SSL"
    assert made["sasl.mechanism"] == "SCRAM-SHA-512"
    assert made["sasl.password"] == "secret"
    assert made["ssl.ca.location"] == "/etc/ssl/kafka.pem"
    assert made["bootstrap.servers"] == "broker:9092"


def test_the_client_takes_tls_and_sasl() -> None:
    properties = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "u",
        "sasl.password": "p",
    }
    KafkaWriter(KafkaOptions("127.0.0.1:1", properties=properties)).close()


def test_the_operator_tunes_but_does_not_weaken() -> None:
    assert configured(linger_ms="50")["linger.ms"] == "50"
    for name in ("acks", "enable.idempotence", "auto.offset.reset", "partitioner"):
        with pytest.raises(InvalidInput, match=name):
            configured(**{name: "x"})


def test_an_unknown_property_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"no\.such"):
        KafkaWriter(KafkaOptions("127.0.0.1:1", properties={"no.such": "1"}))


def test_aws_msk_iam_signs_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    made = configured(sasl_mechanism="AWS_MSK_IAM", tallystick_msk_region="eu-central-1")
    assert made["sasl.mechanism"] == "OAUTHBEARER"
    assert made["security.protocol"] == "SASL_SSL"
    assert "tallystick.msk.region" not in made
    token, expires_at = made["oauth_cb"]("")  # type: ignore[operator]
    assert len(token) > 100
    assert 1_600_000_000 < expires_at < 10_000_000_000  # seconds, not milliseconds
    connect(import_client().Producer, made).flush(0)


def test_aws_msk_iam_needs_a_region() -> None:
    with pytest.raises(InvalidInput, match=r"tallystick\.msk\.region"):
        configured(sasl_mechanism="AWS_MSK_IAM")


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(InvalidInput, match=r"pip install tallystick\[kafka\]"):
        KafkaWriter(KafkaOptions("127.0.0.1:1"))


@pytest.mark.parametrize(
    ("state", "complaint"),
    [
        (SAFE, ""),
        (SAFE._replace(in_sync_min=1), "one disk"),
        (SAFE._replace(in_sync_min=3), "stops every append"),
        (SAFE._replace(replication=2), "2 replicas"),
        (SAFE._replace(retention_ms=24 * 3600 * 1000), "less than 7 days"),
        (SAFE._replace(retention_ms=-1), ""),
        (SAFE._replace(timestamp_type="CreateTime"), "producers' clocks"),
        (SAFE._replace(message_bytes_max=500_000), "larger is refused"),
        (SAFE._replace(partitions=6), "planned operation"),
        (SAFE._replace(cleanup_policy="compact,delete"), "only the last event"),
    ],
)
def test_an_unsafe_topic_is_told(state: TopicState, complaint: str) -> None:
    told = check_topic(state, partitions=12, replication=3)
    assert bool(told) == bool(complaint)
    assert complaint in "; ".join(told)
