"""From the shipped traces to canonical events, by a stated and deterministic rule.

The airline runs carry no times and no token counts: times are drawn from the seed, tokens
are characters / 4, and that usage is labelled "estimated". The Azure traces keep their own
token counts and gaps; only the calendar is shifted so that they end shortly before `now`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

from tallystick.clock import DAY, MINUTE, SECOND, format_time, to_datetime

Message = dict[str, Any]

AIRLINE_TENANTS = ("skyward", "meridian")
CHAT_TENANTS = ("northwind", "contoso", "fabrikam")
CODE_TENANT = "initech"
COST_TENANT = "umbrella"
TENANTS = (*AIRLINE_TENANTS, *CHAT_TENANTS, CODE_TENANT, COST_TENANT)

RETRIED_SHARE = 0.15
LATE_SHARE = 0.05
TOO_LATE_RUNS = 3
UNKNOWN_MODEL_SHARE = 0.02
CHAT_CALLS_PER_RUN = 20
COST_RECORDS = 300
_ENDS_BEFORE_NOW = 10 * MINUTE
_ERROR_CODES = (
    ("not found", "not_found"),
    ("payment", "payment_rejected"),
    ("balance", "payment_rejected"),
    ("not available", "not_available"),
    ("invalid", "invalid_argument"),
    ("number", "invalid_argument"),
)
_FEATURES = {
    "book_reservation": "booking",
    "cancel_reservation": "cancellation",
    "update_reservation_flights": "change-flight",
    "update_reservation_baggages": "baggage",
    "update_reservation_passengers": "passengers",
}
_CHAT_MODELS = {
    "northwind": ("openai", "gpt-4o-mini"),
    "contoso": ("anthropic", "claude-sonnet-4-5"),
    "fabrikam": ("google", "gemini-2.5-flash"),
}


def read_trace(name: str) -> str:
    """Return the text of a shipped trace."""
    return gzip.decompress(
        files("tallystick.demo").joinpath("traces", name + ".gz").read_bytes()
    ).decode()


def airline_runs() -> list[dict[str, Any]]:
    """The 200 recorded agent runs."""
    runs: list[dict[str, Any]] = json.loads(read_trace("tau_bench_gpt4o_airline.json"))
    return runs


def all_messages(now: int, seed: int) -> Iterator[Message]:
    """Every event of the demo, before disturbance, oldest run first per source."""
    rng = random.Random(seed)
    yield from airline_messages(now, rng)
    yield from chat_messages(now, rng)
    yield from code_messages(now, rng)
    yield from cost_records(now, rng)


def airline_messages(now: int, rng: random.Random) -> Iterator[Message]:
    """Lifecycle, attempt, token and tool events of the airline runs."""
    for number, run in enumerate(airline_runs()):
        if number < TOO_LATE_RUNS:
            age = 8 * DAY
        elif rng.random() < LATE_SHARE:
            age = int(rng.uniform(4, 6.9) * DAY)
        else:
            age = int(rng.uniform(0.02, 3) * DAY)
        yield from _AirlineRun(number, run, now - age, rng).messages()


class _AirlineRun:
    """Turns one recorded conversation into events; `clock` moves as it goes."""

    def __init__(self, number: int, run: dict[str, Any], start: int, rng: random.Random) -> None:
        self.number = number
        self.run = run
        self.clock = start
        self.rng = rng
        self.attempt = 1
        self.serial = 0
        self.calls: dict[str, str] = {}
        actions = [action["name"] for action in run["info"]["task"]["actions"]]
        features = [_FEATURES[name] for name in actions if name in _FEATURES]
        self.feature = features[0] if features else "enquiry"

    def messages(self) -> Iterator[Message]:
        """The whole run: sometimes a first attempt that fails midway, then the real one."""
        yield self._event("run_started", "orchestrator")
        if self.rng.random() < RETRIED_SHARE:
            half = len(self.run["traj"]) // 2
            yield from self._attempt(self.run["traj"][:half], "upstream_timeout")
            self.attempt = 2
            self.clock += 2 * SECOND
        yield from self._attempt(self.run["traj"], None)
        if self.run["reward"] == 1.0:
            yield self._event("run_completed", "orchestrator")
        else:
            yield self._event("run_failed", "orchestrator", error_code="task_failed")

    def _attempt(self, trajectory: list[Any], error: str | None) -> Iterator[Message]:
        started = self.clock
        yield self._event("attempt_started", "orchestrator")
        context = cached = 0
        for turn in trajectory:
            text = json.dumps(turn, ensure_ascii=False)
            if turn["role"] == "assistant":
                yield self._call(turn, context, cached, len(text))
                cached = context
                yield from self._tool_calls(turn)
            elif turn["role"] == "tool":
                yield self._tool_result(turn)
            context += len(text)
        more = {"error_code": error} if error else {}
        latency_ms = (self.clock - started) // 1000
        yield self._event("attempt_finished", "orchestrator", latency_ms=latency_ms, **more)

    def _call(self, turn: Any, context: int, cached: int, size: int) -> Message:
        prefix = cached // 4 // 128 * 128
        latency_ms = self.rng.randint(400, 6000)
        self.clock += latency_ms * 1000
        return self._event(
            "token_usage",
            "gateway",
            provider="openai",
            model="gpt-4o",
            tokens_input=context // 4,
            tokens_output=size // 4,
            tokens_cache_read=prefix if prefix >= 1024 else 0,
            latency_ms=latency_ms,
            usage_quality="estimated",
            content={"prompt": turn.get("content"), "messages": self.run["traj"][:3]},
        )

    def _tool_calls(self, turn: Any) -> Iterator[Message]:
        for call in turn.get("tool_calls") or []:
            self.calls[call["id"]] = call["function"]["name"]
            yield self._event(
                "tool_call_started",
                "tool-service",
                tool=call["function"]["name"],
                tool_call_id=call["id"],
                content={"arguments": call["function"]["arguments"]},
            )

    def _tool_result(self, turn: Any) -> Message:
        latency_ms = self.rng.randint(20, 900)
        self.clock += latency_ms * 1000
        failed = str(turn["content"]).startswith("Error")
        more = {"error_code": error_code_of(turn["content"])} if failed else {}
        return self._event(
            "tool_call_finished",
            "tool-service",
            tool=turn["name"],
            tool_call_id=turn["tool_call_id"],
            latency_ms=latency_ms,
            content={"result": turn["content"]},
            **more,
        )

    def _event(self, kind: str, source: str, **more: Any) -> Message:
        self.serial += 1
        self.clock += self.rng.randint(1_000, 60_000)
        tenant = AIRLINE_TENANTS[self.number % 2]
        content = more.pop("content", None)
        event = {
            "event_id": f"air-{self.number}-{self.serial}",
            "event_type": kind,
            "event_time": format_time(self.clock),
            "tenant_id": tenant,
            "run_id": f"airline-{self.number}",
            "attempt": self.attempt,
            "source": source,
            "workflow": "airline_support",
            "agent": "airline-agent",
            "team": "customer-care",
            "product": "travel-assistant",
            "feature": self.feature,
            "customer_tier": "gold" if self.number % 4 == 0 else "standard",
            "environment": "production",
            "user_id": pseudonym(self.run["info"]["task"]["user_id"]),
            **more,
        }
        return event if content is None else {**event, CONTENT: content}


CONTENT = "__content__"
"""Where a message keeps the real content until the disturbance decides to send it."""


def pseudonym(user: str) -> str:
    """The recorded user ids contain names: send an opaque id instead."""
    return "traveller-" + hashlib.sha256(b"demo:" + user.encode()).hexdigest()[:8]


def error_code_of(text: str) -> str:
    """A stable code for a tool's error text; the text itself is personal."""
    lowered = str(text).lower()
    return next((code for words, code in _ERROR_CODES if words in lowered), "tool_error")


def _azure_rows(name: str, now: int) -> list[tuple[int, int, int]]:
    rows = []
    for row in csv.DictReader(read_trace(name).splitlines()):
        moment = datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC)
        rows.append((moment, int(row["ContextTokens"]), int(row["GeneratedTokens"])))
    end = to_datetime(now - _ENDS_BEFORE_NOW)
    shift = end - max(moment for moment, _, _ in rows)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return [
        ((moment + shift - epoch) // timedelta(microseconds=1), context, generated)
        for moment, context, generated in rows
    ]


def chat_messages(now: int, rng: random.Random) -> Iterator[Message]:
    """The chat trace: three tenants, runs of some calls each, some of an unknown model."""
    seen = dict.fromkeys(CHAT_TENANTS, 0)
    for number, (at, context, generated) in enumerate(
        _azure_rows("azure_llm_inference_conv_2023.csv", now)
    ):
        tenant = CHAT_TENANTS[rng.choices((0, 1, 2), (5, 3, 2))[0]]
        provider, model = _CHAT_MODELS[tenant]
        if rng.random() < UNKNOWN_MODEL_SHARE:
            provider, model = "in-house", "house-llm-7b"
        run = seen[tenant] // CHAT_CALLS_PER_RUN
        seen[tenant] += 1
        yield {
            "event_id": f"chat-{number}",
            "event_type": "token_usage",
            "event_time": format_time(at),
            "tenant_id": tenant,
            "run_id": f"chat-{tenant}-{run}",
            "source": "gateway",
            "workflow": "chat",
            "team": "assistant",
            "product": "chat",
            "feature": ("smalltalk", "search", "summaries")[number % 3],
            "environment": "production",
            "user_id": f"user-{rng.randrange(500)}",
            "provider": provider,
            "model": model,
            "prompt_tokens": context,
            "completion_tokens": generated,
            "latency_ms": 80 + generated * 12,
        }


def code_messages(now: int, rng: random.Random) -> Iterator[Message]:
    """The code trace: usage without a run, charged per tenant and minute."""
    for number, (at, context, generated) in enumerate(
        _azure_rows("azure_llm_inference_code_2023.csv", now)
    ):
        yield {
            "event_id": f"code-{number}",
            "event_type": "token_usage",
            "event_time": format_time(at),
            "tenant_id": CODE_TENANT,
            "source": "gateway",
            "team": ("editor", "review")[number % 2],
            "product": "code-completion",
            "feature": ("inline", "block")[rng.randrange(2)],
            "environment": "production",
            "provider": "openai",
            "model": "gpt-4.1-mini",
            "tokens_input": context,
            "tokens_output": generated,
            "latency_ms": 40 + generated * 9,
        }


def cost_records(now: int, rng: random.Random) -> Iterator[Message]:
    """Flat cost records, as other systems send them: already priced."""
    for number in range(COST_RECORDS):
        at = now - _ENDS_BEFORE_NOW - rng.randrange(DAY)
        yield {
            "key": f"cost-{number}",
            "timestamp": format_time(at),
            "tenantId": COST_TENANT,
            "userId": f"user-{rng.randrange(20)}",
            "projectId": f"project-{rng.randrange(4)}",
            "modelId": "text-embedding-3-small",
            "operation": "embedding",
            "currency": "USD",
            "amount": f"0.0{rng.randrange(1, 10**8):08d}",
            "tokensIn": rng.randrange(1, 8000),
            "tokensOut": 0,
            "version": 1,
        }
