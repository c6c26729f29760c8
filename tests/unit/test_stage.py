"""The stage behind Kafka on messages as brokers hand them over: with offsets left out, too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tallystick.clock import from_datetime
from tallystick.errors import InvariantBroken
from tallystick.events.dedup import DedupIndex
from tallystick.events.model import EVENT_FIELDS
from tallystick.events.redaction import Redactor
from tallystick.events.stage import Stage
from tallystick.plumbing.log import Horizon, Verdict
from tallystick.plumbing.log.horizons import closed_before
from tallystick.plumbing.log.kafka import KafkaMessage

NOW = 1_790_000_000_000_000


@pytest.fixture
def index(tmp_path: Path) -> Iterator[DedupIndex]:
    made = DedupIndex(tmp_path)
    yield made
    made.close()


@pytest.fixture
def stage(index: DedupIndex) -> Stage:
    return stage_of(index)


def stage_of(index: DedupIndex, *, is_compacted: bool = False) -> Stage:
    key = b"k" * 32
    return Stage(
        "ml-agents",
        0,
        0,
        1,
        index=index,
        redactor=Redactor(key),
        key=key,
        is_compacted=lambda: is_compacted,
    )


def test_a_message_is_judged_by_the_horizon_of_when_it_came(tmp_path: Path) -> None:
    """So every follower, and every replay of the topic, says the same of it."""
    index, key, closes_at = DedupIndex(tmp_path), b"k" * 32, NOW + 2
    horizons = [Horizon(from_datetime(datetime(2026, 9, 2, tzinfo=UTC)), closes_at)]
    stage = Stage(
        "ml-agents",
        0,
        0,
        1,
        index=index,
        redactor=Redactor(key),
        key=key,
        is_compacted=lambda: False,
        closed_before=partial(closed_before, horizons),
    )
    sent = [
        KafkaMessage(one.offset, NOW + one.offset, one.key, one.value) for one in messages(range(4))
    ]
    staged = stage.take(sent)
    index.close()
    codes = staged.chunk.columns[EVENT_FIELDS.index("reject_code")]
    assert list(codes) == ["", "", "time_expired", "time_expired"]
    assert [json.loads(told)["code"] for _, told in staged.broken] == ["time_expired"] * 2


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


def test_a_hole_is_no_marker(index: DedupIndex) -> None:
    """INV-10: what compaction took stops the follower before it counts on."""
    stage = stage_of(index, is_compacted=True)
    with pytest.raises(InvariantBroken, match="10001 messages in a row are missing"):
        stage.take(messages([0, 1, 10_003]))


def test_a_large_transaction_that_was_aborted_is_passed_by(stage: Stage, index: DedupIndex) -> None:
    """INV-10: whatever it held, every offset is accounted for, in pieces that fit into memory."""
    taken = [stage.take(messages([0, 1, 450_000]), 450_003).chunk]
    while stage.has_more:
        taken.append(stage.take([]).chunk)
    assert [one.offset_end for one in taken] == [200_000, 400_000, 450_003]
    assert [offset for one in taken for offset in one.offsets] == [*range(450_003)]
    verdicts = b"".join(one.verdicts for one in taken)
    originals = [at for at, verdict in enumerate(verdicts) if verdict == Verdict.ORIGINAL]
    assert originals == [0, 1, 450_000]
    assert [row[0] for row in taken[-1].rows[-4:]] == [
        "control:449999",
        "e450000",
        "control:450001",
        "control:450002",
    ]
    assert index.position == 450_003


def test_markers_behind_the_last_message_are_counted(stage: Stage) -> None:
    """A partition at rest is read to its end: nothing is left that looks like a lag."""
    chunk = stage.take(messages([0]), 2).chunk
    assert (chunk.offsets, chunk.offset_end) == ([0, 1], 2)
    assert stage.take([], 5).chunk.verdicts == bytes([Verdict.CONTROL] * 3)
    assert not stage.has_more


def test_a_broken_message_is_told_of_whatever_its_key(stage: Stage) -> None:
    """The topic of broken messages takes no key of a megabyte: that would stop the follower."""
    ((key, _),) = stage.take([KafkaMessage(0, NOW, b"k" * 1_000_000, b"")]).broken
    assert len(key) == 1024
