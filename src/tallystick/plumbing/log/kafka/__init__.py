"""The usage log in Kafka: a writer, a reader of a group, and the topics.

Owns the client's settings that nothing acknowledged be lost or skipped. Never looks into a
message, never decides what is a duplicate. Keeps nothing: positions are the callers', stored
with their results. The client is imported when a class is used (extra `kafka`).
"""

from tallystick.plumbing.log.kafka.options import KafkaOptions
from tallystick.plumbing.log.kafka.reader import KafkaMessage, KafkaReader
from tallystick.plumbing.log.kafka.topics import (
    Watermarks,
    check_topic,
    ensure_topics,
    is_compacted,
)
from tallystick.plumbing.log.kafka.writer import KafkaWriter

__all__ = [
    "KafkaMessage",
    "KafkaOptions",
    "KafkaReader",
    "KafkaWriter",
    "Watermarks",
    "check_topic",
    "ensure_topics",
    "is_compacted",
]
