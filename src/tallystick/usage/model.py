"""The words of usage: what a call used, and what was seen of its answer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

TOKEN_COUNTS = (
    "tokens_input",
    "tokens_output",
    "tokens_cache_read",
    "tokens_cache_write_5m",
    "tokens_cache_write_1h",
    "tokens_reasoning",
)
"""Counts of a call that its event has too."""


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call used, by the provider's word or (`quality` "estimated") by ours."""

    tokens_input: int = 0
    """With what was cached."""
    tokens_output: int = 0
    """With reasoning."""
    tokens_cache_read: int = 0
    tokens_cache_write_5m: int = 0
    tokens_cache_write_1h: int = 0
    tokens_reasoning: int = 0
    tokens_input_audio: int = 0
    """Part of tokens_input."""
    tokens_output_audio: int = 0
    """Part of tokens_output."""
    tools: Mapping[str, int] = {}
    """Paid tools that the model used, and how often."""
    service_tier: str | None = None
    """The tier that served, by the provider's word; None: it did not say."""
    quality: str = "exact"


class Seen(msgspec.Struct, kw_only=True):
    """What was seen of an answer."""

    usage: Usage | None = None
    """None: the answer did not say, or not in a form that can be read."""
    began: Usage | None = None
    """What a stream said of its input before its answer began; its output counts nothing yet."""
    served_model: str = ""
    answer_id: str | int = ""
    service_tier: str | None = None
    """None: the answer did not say which tier served it."""
    error_code: str = ""
