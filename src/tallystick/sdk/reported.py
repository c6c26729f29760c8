"""Usage that the application reports by hand: a call which nobody metered."""

from __future__ import annotations

from datetime import datetime

from tallystick.clock import from_datetime
from tallystick.sdk.client import stand
from tallystick.sdk.recorder import Recorder
from tallystick.sdk.work import event_at


def usage(
    *,
    provider: str,
    model: str,
    tokens_input: int = 0,
    tokens_output: int = 0,
    tokens_cache_read: int = 0,
    tokens_cache_write_5m: int = 0,
    tokens_cache_write_1h: int = 0,
    tokens_reasoning: int = 0,
    request_id: str = "",
    latency_ms: float | None = None,
    is_batch: bool = False,
    is_estimated: bool = False,
    event_id: str = "",
    occurred_at: datetime | None = None,
    client: Recorder | None = None,
) -> str:
    """Record the usage of one model call where the work stands now; return its event id.

    `tokens_input` includes cached tokens, `tokens_output` includes reasoning. It is priced by
    its time, now if `occurred_at` (with an offset) is not given. An `event_id` of your own counts
    once; again with the same time and run it is a duplicate, else a conflict that is refused.
    """
    recorder, place = stand(client)
    fields = {
        "provider": provider,
        "model": model,
        "tokens_input": tokens_input,
        "tokens_output": tokens_output,
        "tokens_cache_read": tokens_cache_read or None,
        "tokens_cache_write_5m": tokens_cache_write_5m or None,
        "tokens_cache_write_1h": tokens_cache_write_1h or None,
        "tokens_reasoning": tokens_reasoning or None,
        "request_id": request_id,
        "latency_ms": latency_ms,
        "is_batch": is_batch or None,
        "usage_quality": "estimated" if is_estimated else "",
    }
    name = event_id or recorder.ids.next_id()
    at = recorder.clock.now() if occurred_at is None else from_datetime(occurred_at)
    recorder.record(event_at(place, "token_usage", name, at, fields))
    return name
