"""Where the log ends: the offsets that the next events will get, whatever the log is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from psycopg_pool import ConnectionPool

from tallystick.plumbing.log.kafka import KafkaOptions, Watermarks
from tallystick.plumbing.log.model import CORRECTIONS
from tallystick.plumbing.log.postgres import PostgresLog


class Heads(Protocol):
    """The end of every partition, corrections included."""

    def heads(self) -> dict[int, int]:
        """Partition -> the offset that the next event will get."""
        ...

    def waiting_since(self, partition: int, position: int) -> int | None:
        """When (micros) what stands at a position arrived; None when that is not known."""
        ...


class PostgresHeads:
    """Of partitions of the log in PostgreSQL."""

    def __init__(self, logs: Sequence[PostgresLog]) -> None:
        self._logs = {log.partition: log for log in logs}

    def heads(self) -> dict[int, int]:
        """Partition -> the offset that the next event will get."""
        return {partition: log.head() for partition, log in self._logs.items()}

    def waiting_since(self, partition: int, position: int) -> int | None:
        """When what stands at a position arrived."""
        return self._logs[partition].oldest_waiting(position)


class KafkaHeads:
    """Of the topic's partitions, and of the corrections in PostgreSQL."""

    def __init__(self, watermarks: Watermarks, corrections: PostgresLog) -> None:
        self._watermarks = watermarks
        self._corrections = PostgresHeads([corrections])
        self._corrections_partition = corrections.partition

    def heads(self) -> dict[int, int]:
        """Partition -> the offset that the next event will get."""
        return {**self._watermarks.heads(), **self._corrections.heads()}

    def waiting_since(self, partition: int, position: int) -> int | None:
        """Known of corrections only: asking Kafka would mean to read there."""
        if partition != self._corrections_partition:
            return None
        return self._corrections.waiting_since(partition, position)


def open_heads(pool: ConnectionPool, kafka: KafkaOptions | None) -> Heads:
    """The ends of the log, whatever it is; corrections are always in PostgreSQL."""
    corrections = PostgresLog(pool, CORRECTIONS)
    if kafka is None:
        return PostgresHeads([PostgresLog(pool), corrections])
    return KafkaHeads(Watermarks(kafka), corrections)
