"""Marked work as a real server tells it: runs, attempts, tools, decorators, threads, tasks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tallystick.sdk import Tallystick, tool
from tests.sdk.serving import story_of
from tests.server import Server


def types_of(story: dict[str, Any]) -> list[str]:
    return [fact["event_type"] for fact in story["timeline"]]


def test_a_run_with_a_tool_arrives(server: Server, client: Tallystick) -> None:
    with client.run(workflow="support", feature="chat", user="ada") as r:
        with client.attempt(), tool("search"):
            pass
        client.usage(provider="openai", model="gpt-4o", tokens_input=1200, tokens_output=250)
    assert client.flush(10)
    assert client.counters()["delivered"] == 7
    story = story_of(server, r.run_id)
    assert types_of(story) == [
        "run_started",
        "attempt_started",
        "tool_call_started",
        "tool_call_finished",
        "attempt_finished",
        "token_usage",
        "run_completed",
    ]
    assert story["status"] == "completed"
    assert story["feature"] == "chat"


def test_usage_that_is_reported_again_is_a_duplicate_of_its_own_time(
    server: Server, client: Tallystick
) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    for _ in range(2):
        client.usage(
            provider="openai",
            model="gpt-4o",
            tokens_input=7,
            request_id="again",
            event_id="reported-twice",
            occurred_at=at,
        )
        assert client.flush(10)
    counters = client.counters()
    assert (counters["refused"], counters["duplicates"]) == (0, 1)
    with pytest.raises(ValueError, match="without an offset"):
        client.usage(provider="openai", model="gpt-4o", occurred_at=at.replace(tzinfo=None))


def test_a_failure_is_told_by_its_class(server: Server, client: Tallystick) -> None:
    with pytest.raises(ZeroDivisionError), client.run(workflow="w") as r, tool("divide"):
        _ = 1 / 0
    assert client.flush(10)
    story = story_of(server, r.run_id)
    assert story["status"] == "failed"
    assert {fact.get("error_code") for fact in story["timeline"]} == {None, "ZeroDivisionError"}
