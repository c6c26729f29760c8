"""The disturbance keeps its stated shares, and nothing is lost in it."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest

from tallystick.demo.disturb import (
    CONFLICTS,
    CONTENT_SHARE,
    DELIVERED_LATE_SHARE,
    DUPLICATE_SHARE,
    EVENTS_PER_REQUEST,
    MALFORMED_SHARE,
    DemoRequest,
    Disturbance,
    disturb,
)
from tallystick.demo.traces import CONTENT, Message
from tests.acceptance.personal_data import personal_strings, scan_blobs
from tests.unit.demo.moment import NOW, SEED
from tests.unit.demo.reading import CLOUD_EVENTS, NDJSON, identity, plain_body, read_events

Disturbed = tuple[list[DemoRequest], Disturbance]


def test_same_seed_sends_the_same_bodies(messages: list[Message], disturbed: Disturbed) -> None:
    again, record = disturb(messages, NOW, SEED)
    assert record == disturbed[1]
    assert [plain_body(r) for r in again.requests] == [plain_body(r) for r in disturbed[0]]


def test_shares_are_the_stated_ones(messages: list[Message], disturbed: Disturbed) -> None:
    record = disturbed[1]
    broken = record.rejected.total() - CONFLICTS
    carriers = sum(CONTENT in message for message in messages)
    assert record.duplicates / len(messages) == pytest.approx(DUPLICATE_SHARE, rel=0.15)
    assert broken / len(messages) == pytest.approx(MALFORMED_SHARE, rel=0.3)
    assert record.with_content / carriers == pytest.approx(CONTENT_SHARE, rel=0.2)
    late = record.delivered_late / len(messages)
    assert late == pytest.approx(DELIVERED_LATE_SHARE, rel=0.15)


def test_requests_add_up(messages: list[Message], disturbed: Disturbed) -> None:
    requests, record = disturbed
    assert sum(request.good for request in requests) == len(messages) + record.duplicates
    assert sum((request.rejected for request in requests), Counter[str]()) == record.rejected
    assert all(
        request.good + request.rejected.total() <= EVENTS_PER_REQUEST for request in requests
    )


def test_every_form_is_used(disturbed: Disturbed) -> None:
    forms = Counter((request.content_type, request.content_encoding) for request in disturbed[0])
    assert set(forms) == {
        ("application/json", ""),
        ("application/json", "gzip"),
        (NDJSON, ""),
        (NDJSON, "zstd"),
        (CLOUD_EVENTS, ""),
    }
    assert min(forms.values()) >= 10


def test_every_kind_of_broken_message_is_sent(disturbed: Disturbed) -> None:
    assert set(disturbed[1].rejected) == {
        "wrong_type",
        "empty_id",
        "naive_time",
        "negative_number",
        "time_in_future",
        "not_finite",
        "invalid_json",
        "missing_field",
        "event_id_conflict",
    }


def test_conflicts_come_last_and_reuse_ids_with_other_content(
    messages: list[Message], disturbed: Disturbed
) -> None:
    original = {identity(message): message for message in messages}
    *_, last = disturbed[0]
    assert last.rejected == Counter({"event_id_conflict": CONFLICTS})
    assert last.good == 0
    conflicts = list(read_events(last))
    assert len({identity(event) for event in conflicts}) == CONFLICTS
    for event in conflicts:
        expected = {k: v for k, v in original[identity(event)].items() if k != CONTENT}
        assert event != expected


def test_order_is_disturbed(messages: list[Message], disturbed: Disturbed) -> None:
    places = {identity(message): place for place, message in enumerate(messages)}
    order = [places[identity(event)] for request in disturbed[0] for event in read_events(request)]
    backwards = sum(after < before for before, after in pairwise(order))
    assert backwards / len(order) > 0.03


def test_real_personal_data_is_sent(disturbed: Disturbed) -> None:
    sent = [(str(number), plain_body(request)) for number, request in enumerate(disturbed[0])]
    kinds = {hit.needle.kind for hit in scan_blobs(sent, personal_strings())}
    assert kinds == {
        "name",
        "user id",
        "email",
        "address",
        "date of birth",
        "payment id",
        "reservation id",
        "message",
    }


def test_content_marker_itself_never_leaves(disturbed: Disturbed) -> None:
    marker = json.dumps(CONTENT).encode()
    assert not any(marker in plain_body(request) for request in disturbed[0])
