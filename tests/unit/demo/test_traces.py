"""The traces become events by a stated rule, the same for the same seed."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from datetime import datetime

import pytest

from tallystick.clock import DAY, MINUTE, format_time
from tallystick.demo.traces import (
    CODE_TENANT,
    CONTENT,
    LATE_SHARE,
    RETRIED_SHARE,
    TENANTS,
    TOO_LATE_RUNS,
    UNKNOWN_MODEL_SHARE,
    Message,
    airline_messages,
    airline_runs,
    all_messages,
    error_code_of,
    pseudonym,
    read_trace,
)
from tests.acceptance.personal_data import personal_strings, scan_blobs
from tests.unit.demo.moment import NOW, SEED
from tests.unit.demo.reading import identity


def _of(messages: list[Message], kind: str) -> list[Message]:
    return [message for message in messages if message.get("event_type") == kind]


def _airline(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message.get("workflow") == "airline_support"]


def test_same_seed_and_moment_make_the_same_messages(messages: list[Message]) -> None:
    assert list(all_messages(NOW, SEED)) == messages
    first = list(airline_messages(NOW, random.Random(SEED)))
    assert first != list(airline_messages(NOW, random.Random(SEED + 1)))


def test_every_message_has_its_own_identity_and_a_known_tenant(messages: list[Message]) -> None:
    identities = [identity(message) for message in messages]
    assert len(set(identities)) == len(identities)
    assert {tenant for tenant, _ in identities} == set(TENANTS)


def test_every_recorded_run_is_told_from_start_to_end(messages: list[Message]) -> None:
    runs = airline_runs()
    succeeded = sum(run["reward"] == 1.0 for run in runs)
    assert (len(runs), succeeded) == (200, 84)
    assert len(_of(messages, "run_started")) == 200
    assert len(_of(messages, "run_completed")) == succeeded
    assert len(_of(messages, "run_failed")) == 200 - succeeded
    ends = Counter(message["run_id"] for message in _of(messages, "run_completed"))
    ends += Counter(message["run_id"] for message in _of(messages, "run_failed"))
    assert set(ends.values()) == {1}


def test_last_attempt_holds_the_whole_conversation(messages: list[Message]) -> None:
    last: dict[str, int] = {}
    for message in _airline(messages):
        last[message["run_id"]] = max(last.get(message["run_id"], 1), message["attempt"])
    final = [m for m in _airline(messages) if m["attempt"] == last[m["run_id"]]]
    assert len(_of(final, "token_usage")) == 2454
    assert len(_of(final, "tool_call_finished")) == 1164
    assert sum("error_code" in message for message in _of(final, "tool_call_finished")) == 73
    retried = sum(attempt == 2 for attempt in last.values())
    assert retried == pytest.approx(200 * RETRIED_SHARE, abs=18)


def test_attempt_that_fails_midway_used_a_prefix_of_the_conversation(
    messages: list[Message],
) -> None:
    usage: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for message in _of(_airline(messages), "token_usage"):
        key = message["run_id"], message["attempt"]
        usage.setdefault(key, []).append((message["tokens_input"], message["tokens_output"]))
    first_attempts = [key for key in usage if (key[0], 2) in usage and key[1] == 1]
    assert first_attempts
    for run, _ in first_attempts:
        failed, whole = usage[run, 1], usage[run, 2]
        assert failed == whole[: len(failed)]
        assert len(failed) < len(whole)


def test_estimated_usage_says_so_and_caches_only_long_prefixes(messages: list[Message]) -> None:
    for message in _of(_airline(messages), "token_usage"):
        cached = message["tokens_cache_read"]
        assert message["usage_quality"] == "estimated"
        assert cached % 128 == 0
        assert cached == 0 or 1024 <= cached <= message["tokens_input"]
    others = [m for m in _of(messages, "token_usage") if m.get("workflow") != "airline_support"]
    assert all("usage_quality" not in message for message in others)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("conv", ("prompt_tokens", "completion_tokens")),
        ("code", ("tokens_input", "tokens_output")),
    ],
)
def test_real_token_counts_and_gaps_are_kept(
    messages: list[Message], name: str, fields: tuple[str, str]
) -> None:
    rows = list(csv.DictReader(read_trace(f"azure_llm_inference_{name}_2023.csv").splitlines()))
    prefix = {"conv": "chat-", "code": "code-"}[name]
    sent = [m for m in messages if m.get("event_id", "").startswith(prefix)]
    recorded = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows]
    assert [(message[fields[0]], message[fields[1]]) for message in sent] == recorded
    first, second = (datetime.fromisoformat(message["event_time"]) for message in sent[:2])
    was_first, was_second = (datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows[:2])
    assert second - first == was_second - was_first


def test_times_end_ten_minutes_before_now_and_reach_beyond_the_late_window(
    messages: list[Message],
) -> None:
    usage = [m["event_time"] for m in messages if m.get("event_id", "")[:5] in ("chat-", "code-")]
    assert max(usage) == format_time(NOW - 10 * MINUTE)
    airline = _of(_airline(messages), "run_started")
    too_late = [m for m in airline if m["event_time"] < format_time(NOW - 7 * DAY)]
    late = [m for m in airline if m["event_time"] < format_time(NOW - 3 * DAY)]
    assert len(too_late) == TOO_LATE_RUNS
    assert len(late) - len(too_late) == pytest.approx(200 * LATE_SHARE, abs=10)
    moments = [m.get("event_time") or m["timestamp"] for m in messages]
    assert max(moments) <= format_time(NOW)


def test_unknown_models_are_a_small_share(messages: list[Message]) -> None:
    chat = [m for m in messages if m.get("workflow") == "chat"]
    unknown = sum(message["model"] == "house-llm-7b" for message in chat)
    assert unknown / len(chat) == pytest.approx(UNKNOWN_MODEL_SHARE, rel=0.3)


def test_code_usage_belongs_to_no_run(messages: list[Message]) -> None:
    code = [m for m in messages if m.get("tenant_id") == CODE_TENANT]
    assert len(code) == 8819
    assert not any("run_id" in message for message in code)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Error: payment method not found", "not_found"),
        ("Error: payment amount does not add up, but paid 299", "payment_rejected"),
        ("Error: gift card balance is not enough", "payment_rejected"),
        ("Error: flight HAT030 not available on date 2024-05-13", "not_available"),
        ("Error: not enough seats on flight HAT290", "tool_error"),
        ("Error: certificate cannot be used to update reservation", "tool_error"),
    ],
)
def test_error_text_becomes_a_code_and_is_never_the_code(text: str, code: str) -> None:
    assert error_code_of(text) == code


def test_user_ids_are_opaque_and_stable() -> None:
    assert pseudonym("mia_li_3668") == pseudonym("mia_li_3668")
    assert pseudonym("mia_li_3668") != pseudonym("mia_li_3669")
    assert pseudonym("mia_li_3668").startswith("traveller-")
    assert len(pseudonym("mia_li_3668")) == len("traveller-") + 8


def test_nothing_personal_is_outside_the_content(messages: list[Message]) -> None:
    plain = [{k: v for k, v in message.items() if k != CONTENT} for message in messages]
    sent = json.dumps(plain, ensure_ascii=False).encode()
    assert list(scan_blobs([("messages", sent)], personal_strings())) == []
