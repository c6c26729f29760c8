"""How Kafka is reached: brokers, topics, and any further property of librdkafka.

What correctness rests on (acknowledgement by all in-sync replicas, idempotence, the
partitioner, no automatic commits, no automatic jump over deleted messages) cannot be set
from outside. Everything about security and tuning can; `sasl.mechanism=AWS_MSK_IAM`, which
librdkafka does not know, becomes OAUTHBEARER with tokens signed by the AWS credentials of
the process. The client library is imported when Kafka is used, not before.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import msgspec

from tallystick.errors import InvalidInput

log = logging.getLogger("tallystick.kafka")
"""Also what librdkafka itself has to say."""

MSK_REGION = "tallystick.msk.region"
_MSK_IAM = "AWS_MSK_IAM"
_IMPATIENCE = {
    # A broker that hangs is given up early enough to try the next leader within one append.
    "socket.timeout.ms": 10_000,
    "socket.connection.setup.timeout.ms": 5_000,
    "socket.keepalive.enable": True,
    "reconnect.backoff.max.ms": 1_000,
}
_FIXED = frozenset(
    ("acks", "request.required.acks", "enable.idempotence", "partitioner", "transactional.id")
    + ("group.id", "group.instance.id", "group.protocol", "partition.assignment.strategy")
    + ("auto.offset.reset", "enable.auto.commit", "enable.auto.offset.store")
    + ("bootstrap.servers", "metadata.broker.list", "enable.partition.eof", "logger")
)


class KafkaOptions(msgspec.Struct, frozen=True):
    """The cluster and the two topics."""

    brokers: str
    """Addresses, `host:port,host:port`."""
    topic: str = "ml-agents"
    broken_topic: str = "ml-agents-broken-msg"
    properties: dict[str, str] = {}
    """Further librdkafka properties: `security.protocol`, `sasl.mechanism`, ..."""


def import_client(name: str = "confluent_kafka") -> ModuleType:
    """Import the Kafka client, or say how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InvalidInput(
            "Kafka needs its client: pip install tallystick[kafka]", code="kafka_not_installed"
        ) from error


def configure(
    options: KafkaOptions, defaults: Mapping[str, Any], fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """Merge: `defaults`, over them the operator's properties, over all what is `fixed`.

    Raises InvalidInput for a property that is not the operator's to set.
    """
    if forbidden := sorted(_FIXED & options.properties.keys()):
        raise InvalidInput(
            f"Kafka property {forbidden[0]} is fixed: correctness rests on it",
            code="kafka_property_fixed",
            field=forbidden[0],
        )
    properties: dict[str, Any] = {**_IMPATIENCE, **defaults, **options.properties}
    region = properties.pop(MSK_REGION, "")
    mechanism = properties.pop("sasl.mechanisms", properties.get("sasl.mechanism"))
    if mechanism is not None:
        properties["sasl.mechanism"] = mechanism
    if mechanism == _MSK_IAM:
        properties.update(_sign_by_aws(region))
        properties.setdefault("security.protocol", "SASL_SSL")
    return {"bootstrap.servers": options.brokers, "logger": log, **properties, **fixed}


def connect(make: Callable[[dict[str, Any]], Any], configuration: dict[str, Any]) -> Any:
    """Make a client; InvalidInput says which property librdkafka refused."""
    client = import_client()
    try:
        return make(configuration)
    except (client.KafkaException, ValueError, TypeError) as error:
        reason = error.args[0].str() if isinstance(error, client.KafkaException) else error
        raise InvalidInput(f"Kafka properties: {reason}", code="kafka_property_bad") from error


def _sign_by_aws(region: str) -> dict[str, Any]:
    if not region:
        raise InvalidInput(
            f"sasl.mechanism={_MSK_IAM} needs the property {MSK_REGION}, such as eu-central-1",
            code="kafka_property_missing",
            field=MSK_REGION,
        )
    try:
        signer = importlib.import_module("aws_msk_iam_sasl_signer.MSKAuthTokenProvider")
    except ImportError as error:
        raise InvalidInput(
            f"sasl.mechanism={_MSK_IAM} needs the signer: pip install tallystick[msk]",
            code="kafka_signer_not_installed",
        ) from error

    def token(_: str) -> tuple[str, float]:
        text, expires_at_ms = signer.generate_auth_token(region)
        return text, expires_at_ms / 1000  # the client wants seconds since the epoch

    return {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": token}
