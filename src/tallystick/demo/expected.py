"""What the totals must be, computed a second time from the input alone.

Costs come from the package genai-prices call by call, rounded half to even to nano-dollars;
credits from the published credit card: cost x 1.2 / 0.01 USD a token call, 0.05 a tool call
that did not fail, 0.01 a second of an attempt; of a retried run only the last attempt.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from tallystick.demo.traces import Message

_CREDITS_PER_USD = Decimal("1.2") / Decimal("0.01")
_TOOL_CALL_CREDITS = Decimal("0.05")
_CREDITS_PER_MS = Decimal("0.01") / 1000
_NANO = Decimal("1e-9")
_MICRO = Decimal("1e-6")


@dataclass
class Expected:
    """Totals by what they are of."""

    events: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    unpriced: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    cost: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    credits: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    tool_errors: Counter[str] = field(default_factory=Counter)
    tool_calls: Counter[str] = field(default_factory=Counter)
    runs: set[tuple[str, str]] = field(default_factory=set)
    attempts: set[tuple[str, str, int]] = field(default_factory=set)


def expect(messages: list[Message]) -> Expected:
    """Add up the undisturbed messages."""
    expected = Expected()
    last_attempt: dict[tuple[str, str], int] = {}
    for message in messages:
        if run := message.get("run_id"):
            key = (message["tenant_id"], run)
            last_attempt[key] = max(last_attempt.get(key, 1), message.get("attempt", 1))
    for message in messages:
        expected.events += 1
        if "key" in message:
            _add_cost_record(expected, message)
            continue
        tenant, run = message["tenant_id"], message.get("run_id", "")
        attempt = message.get("attempt", 1)
        expected.by_type[message["event_type"]] += 1
        if run:
            expected.runs.add((tenant, run))
            expected.attempts.add((tenant, run, attempt))
        credit = _add_event(expected, message)
        if not run or attempt == last_attempt[tenant, run]:
            expected.credits[tenant] += credit
    return expected


def _add_event(expected: Expected, message: Message) -> Decimal:
    kind = message["event_type"]
    if kind == "token_usage":
        return _add_call(expected, message)
    if kind == "tool_call_finished":
        failed = "error_code" in message
        expected.tool_calls[message["tool"]] += 1
        expected.tool_errors[message["tool"]] += failed
        return Decimal(0) if failed else _TOOL_CALL_CREDITS
    if kind == "attempt_finished":
        return (_CREDITS_PER_MS * int(message["latency_ms"])).quantize(_MICRO, ROUND_HALF_EVEN)
    return Decimal(0)


def _add_call(expected: Expected, message: Message) -> Decimal:
    tokens_input = _count(message, "tokens_input", "prompt_tokens")
    tokens_output = _count(message, "tokens_output", "completion_tokens")
    cached = _count(message, "tokens_cache_read")
    expected.calls[message["model"]] += 1
    expected.tokens["input"] += tokens_input
    expected.tokens["output"] += tokens_output
    expected.tokens["cache_read"] += cached
    exact = _price(message, tokens_input, tokens_output, cached)
    if exact is None:
        expected.unpriced += 1
        return Decimal(0)
    expected.cost[message["model"]] += exact.quantize(_NANO, ROUND_HALF_EVEN)
    return (exact * _CREDITS_PER_USD).quantize(_MICRO, ROUND_HALF_EVEN)


def _count(message: Message, *names: str) -> int:
    return next((int(message[name]) for name in names if name in message), 0)


def _price(message: Message, given: int, generated: int, cached: int) -> Decimal | None:
    from genai_prices import Usage, calc_price

    usage: Any = Usage(input_tokens=given, output_tokens=generated, cache_read_tokens=cached)
    try:
        price = calc_price(
            usage,
            model_ref=message["model"],
            provider_id=message["provider"],
            genai_request_timestamp=datetime.fromisoformat(message["event_time"]),
        )
    except LookupError:
        return None
    return price.total_price


def _add_cost_record(expected: Expected, record: Message) -> None:
    exact = Decimal(record["amount"])
    expected.by_type["cost"] += 1
    expected.calls[record["modelId"]] += 1
    expected.tokens["input"] += record["tokensIn"]
    expected.tokens["output"] += record["tokensOut"]
    expected.cost[record["modelId"]] += exact.quantize(_NANO, ROUND_HALF_EVEN)
    credit = (exact * _CREDITS_PER_USD).quantize(_MICRO, ROUND_HALF_EVEN)
    expected.credits[record["tenantId"]] += credit
