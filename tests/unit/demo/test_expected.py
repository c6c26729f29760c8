"""The second computation, checked by hand on a few messages.

gpt-4o costs 2.50 USD a million tokens in, 1.25 cached, 10 out; a credit is 0.01 USD and
tokens carry a markup of 1.2, so one USD of tokens is 120 credits.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tallystick.demo.expected import expect
from tallystick.demo.traces import Message


def _event(kind: str, **more: Any) -> Message:
    return {
        "event_id": f"e-{kind}-{sorted(more.items())}",
        "event_type": kind,
        "event_time": "2026-03-04T05:06:07Z",
        "tenant_id": "acme",
        **more,
    }


def _call(**more: Any) -> Message:
    usage: Message = {"provider": "openai", "model": "gpt-4o", "tokens_input": 1000}
    return _event("token_usage", **{**usage, "tokens_output": 100, **more})


def test_call_is_priced_with_its_cached_part() -> None:
    """3,000 in of which 1,024 cached, 100 out: 0.00494 + 0.00128 + 0.001 = 0.00722 USD."""
    expected = expect([_call(tokens_input=3000, tokens_cache_read=1024)])
    assert expected.cost == {"gpt-4o": Decimal("0.00722")}
    assert expected.credits == {"acme": Decimal("0.8664")}
    assert expected.tokens == {"input": 3000, "output": 100, "cache_read": 1024}


def test_alias_names_count_the_same() -> None:
    usage = {"provider": "openai", "model": "gpt-4o", "prompt_tokens": 1000}
    aliased = expect([_event("token_usage", **usage, completion_tokens=100)])
    assert aliased.cost == expect([_call()]).cost == {"gpt-4o": Decimal("0.0035")}


def test_unknown_model_is_unpriced_and_not_charged() -> None:
    expected = expect([_call(model="house-llm-7b", provider="in-house")])
    assert (expected.unpriced, expected.calls["house-llm-7b"]) == (1, 1)
    assert expected.tokens["input"] == 1000
    assert sum(expected.cost.values()) == 0
    assert expected.credits["acme"] == 0


def test_only_the_last_attempt_of_a_run_is_charged_and_all_of_it_costs() -> None:
    calls = [_call(run_id="r", attempt=1), _call(run_id="r", attempt=2)]
    expected = expect(calls)
    assert expected.cost["gpt-4o"] == Decimal("0.007")
    assert expected.credits["acme"] == Decimal("0.42")
    assert (len(expected.runs), len(expected.attempts)) == (1, 2)


def test_order_of_attempts_does_not_matter() -> None:
    first, second = _call(run_id="r", attempt=1, tokens_input=9), _call(run_id="r", attempt=2)
    assert expect([first, second]).credits == expect([second, first]).credits


def test_usage_without_a_run_is_all_charged() -> None:
    assert expect([_call(), _call(tokens_output=101)]).credits["acme"] == Decimal("0.8412")


def test_tool_call_is_charged_unless_it_failed() -> None:
    tool = {"run_id": "r", "tool": "search"}
    done = _event("tool_call_finished", **tool)
    failed = _event("tool_call_finished", **tool, error_code="not_found")
    expected = expect([_event("tool_call_started", **tool), done, failed])
    assert expected.credits["acme"] == Decimal("0.05")
    assert (expected.tool_calls["search"], expected.tool_errors["search"]) == (2, 1)


def test_runtime_is_charged_by_the_attempt() -> None:
    finished = _event("attempt_finished", run_id="r", attempt=1, latency_ms=12_345)
    assert expect([finished]).credits["acme"] == Decimal("0.12345")


def test_flat_cost_record_keeps_its_amount() -> None:
    """0.0333333335 USD rounds half to even to nano-dollars; credits come from the exact amount."""
    record = {
        "key": "c",
        "tenantId": "acme",
        "modelId": "embedder",
        "amount": "0.0333333335",
        "tokensIn": 7,
        "tokensOut": 0,
    }
    expected = expect([record])
    assert expected.cost["embedder"] == Decimal("0.033333334")
    assert expected.credits["acme"] == Decimal("4.000000")
    assert (expected.events, expected.by_type["cost"], expected.tokens["input"]) == (1, 1, 7)
