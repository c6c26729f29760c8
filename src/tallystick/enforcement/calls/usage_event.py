"""The event of a call: what it used, under an id that only its hold can have. Pure.

A repeat says the same under the same id and is a duplicate; so an event is appended as
often as one likes and counts once. Its time is the call's authorization, which the hold
keeps: whoever settles says the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tallystick.bounds import ID_LENGTH_MAX, TOKENS_MAX
from tallystick.clock import format_time
from tallystick.enforcement.calls.audio import AUDIO_TIER, split_audio
from tallystick.enforcement.calls.estimate import tier_served
from tallystick.enforcement.calls.model import CallPermit, Usage
from tallystick.errors import InvalidInput
from tallystick.events.model import Event
from tallystick.events.redaction import Redactor
from tallystick.events.rules import Refused, make_event
from tallystick.usage.model import TOKEN_COUNTS

_FIELDS = {
    "team": "team",
    "product": "product",
    "feature": "feature",
    "user": "user_id",
    "user_id": "user_id",
    "project": "project_id",
    "project_id": "project_id",
    "workflow": "workflow",
    "agent": "agent",
    "environment": "environment",
    "customer_tier": "customer_tier",
    "operation": "operation",
}
"""Dimension -> field of an event; other dimensions are kept as attributes."""

_ATTRIBUTES = {"key": "tallystick_key", "org": "tallystick_org"}
"""Dimension -> attribute, where a sender's own attribute of that name may be a secret."""

_TOOL_USES_MAX = 10_000
"""Each is an event of its own."""


def event_id_of(hold_id: str, tenant_id: str, redactor: Redactor) -> str:
    """The id of a call's event: nobody else can know it before, and take it."""
    return f"call:{hold_id}:{redactor.hashed(hold_id, tenant_id)[len('hmac:') :]}"


def check_usage(usage: Usage) -> None:
    """Refuse counts that no event may have; raises InvalidInput."""
    for name in TOKEN_COUNTS:
        if not 0 <= getattr(usage, name) <= TOKENS_MAX:
            raise InvalidInput(f"{name} must be from 0 to {TOKENS_MAX}", field=name)
    cached = usage.tokens_cache_read + usage.tokens_cache_write_5m + usage.tokens_cache_write_1h
    if cached > usage.tokens_input:
        raise InvalidInput("tokens_input includes what was cached", field="tokens_input")
    for whole, part in (
        ("tokens_input", "tokens_input_audio"),
        ("tokens_output", "tokens_output_audio"),
    ):
        if not 0 <= getattr(usage, part) <= getattr(usage, whole):
            raise InvalidInput(f"{whole} includes audio", field=part)
    if usage.tokens_reasoning > usage.tokens_output:
        raise InvalidInput("tokens_output includes reasoning", field="tokens_output")
    tier = usage.service_tier or ""
    if len(tier) > ID_LENGTH_MAX or not (tier + " ").isprintable():
        raise InvalidInput(
            f"service_tier may have {ID_LENGTH_MAX} printable characters", field="service_tier"
        )
    if usage.quality not in ("exact", "estimated"):
        raise InvalidInput("quality must be exact or estimated", field="quality")
    if min(usage.tools.values(), default=0) < 0 or sum(usage.tools.values()) > _TOOL_USES_MAX:
        raise InvalidInput(f"tools may be used up to {_TOOL_USES_MAX} times in all", field="tools")
    if any(not 0 < len(name) <= ID_LENGTH_MAX or not name.isprintable() for name in usage.tools):
        raise InvalidInput("a tool's name has 1 to 128 printable characters", field="tools")


def messages_of(
    permit: CallPermit,
    usage: Usage,
    *,
    event_id: str,
    outcome: str,
    error_code: str,
    latency_ms: float | None,
    provider_request_id: str,
    served_model: str,
) -> list[dict[str, Any]]:
    """The call's event, and one for each use of a paid tool, as a sender would write them."""
    ask = permit.ask
    common = _common(permit)
    usage, audio = split_audio(usage)
    attrs: dict[str, Any] = {
        _ATTRIBUTES.get(name, name): value
        for name, value in ask.attribution.items()
        if name not in _FIELDS
    }
    attrs["outcome"] = outcome
    if provider_request_id:
        attrs["provider_request_id"] = provider_request_id
    if served_model and served_model != permit.model:
        attrs["served_model"] = served_model
    event = {
        **common,
        "event_id": event_id,
        "event_type": "token_usage",
        "provider": permit.provider,
        "model": permit.model,
        "service_tier": tier_served(ask.service_tier, usage),
        "is_batch": ask.is_batch,
        "usage_quality": usage.quality,
        "error_code": error_code,
        "attrs": attrs,
        **_counts(usage),
    }
    if latency_ms is not None:
        event["latency_ms"] = latency_ms
    events = [event, *_tool_events(event_id, usage, common)]
    if audio is not None:
        events.append(_audio_event(event, audio))
    return events


def events_of(
    messages: Sequence[dict[str, Any]], received_at: int, redactor: Redactor
) -> list[Event]:
    """The events that the door would make of messages; raises InvalidInput as it refuses.

    They are read as they would be sent: an event's digest is over what was given, and a text
    of ours that is a default would count as not given.
    """
    sent = msgspec.json.decode(msgspec.json.encode(messages))
    try:
        return [make_event(one, received_at=received_at, redactor=redactor) for one in sent]
    except Refused as refused:
        raise InvalidInput(refused.reason, code=refused.code) from refused


def _common(permit: CallPermit) -> dict[str, Any]:
    ask = permit.ask
    dimensions = {
        field: value for name, field in _FIELDS.items() if (value := ask.attribution.get(name))
    }
    nested = ask.root_run_id if ask.root_run_id != permit.run_id else ""
    return {
        **dimensions,
        "event_time": format_time(permit.occurred_at),
        "tenant_id": permit.tenant_id,
        "run_id": permit.run_id,
        "attempt": ask.attempt,
        "source": "calls",
        "parent_run_id": ask.parent_run_id,
        "root_run_id": nested,
        "request_id": permit.request_id,
    }


def _tool_events(event_id: str, usage: Usage, common: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for place, (tool, uses) in enumerate(sorted(usage.tools.items())):
        for number in range(uses):
            yield {
                **common,
                "event_id": f"{event_id}:{place}.{number}",
                "event_type": "tool_call_finished",
                "tool": tool,
            }


def _counts(usage: Usage) -> dict[str, int]:
    return {name: count for name in TOKEN_COUNTS if (count := getattr(usage, name))}


def _audio_event(event: dict[str, Any], audio: Usage) -> dict[str, Any]:
    """The part of the call that was sound; how long the call took is said once."""
    rest = {name: event[name] for name in event if name not in (*TOKEN_COUNTS, "latency_ms")}
    own = {"event_id": f"{event['event_id']}:audio", "service_tier": AUDIO_TIER}
    return {**rest, **own, **_counts(audio)}
