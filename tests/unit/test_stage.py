"""The stage behind Kafka on messages as brokers hand them over: with offsets left out, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tallystick.errors import InvariantBroken
from tallystick.events.dedup import DedupIndex
from tallystick.events.redaction import Redactor
from tallystick.events.stage import Stage
from tallystick.plumbing.log import Verdict
from tallystick.plumbing.log.kafka import KafkaMessage

NOW = 1_790_000_000_000_000


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    index = DedupIndex(tmp_path)
    key = b"k" * 32
    yield Stage("ml-agents", 0, 0, 1, index=index, redactor=Redactor(key), key=key)
    index.close()


def messages(offsets: Sequence[int]) -> list[KafkaMessage]:
    """One run's start each."""
    text = (
        '{"event_id":"e%d","event_type":"run_started","event_time":"2026-09-01T00:00:00Z",'
        '"tenant_id":"a","run_id":"r"}'
    )
    return [KafkaMessage(one, NOW, b"r", (text % one).encode()) for one in offsets]


def test_markers_of_many_small_transactions_are_accounted_for(stage: Stage) -> None:
    """INV-10: a producer that commits each message leaves an offset out after each."""
    chunk = stage.take(messages(range(0, 22_000, 2))).chunk
    assert chunk.offsets == list(range(21_999))
    assert chunk.verdicts.count(Verdict.CONTROL) == 10_999


def test_a_hole_is_no_marker(stage: Stage) -> None:
    """INV-10: what compaction took stops the follower before it counts on."""
    with pytest.raises(InvariantBroken, match="10001 messages in a row are missing"):
        stage.take(messages([0, 1, 10_003]))
