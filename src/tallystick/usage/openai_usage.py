"""Usage as OpenAI counts it, and servers that speak the same: chat, embeddings and Responses.

Counts differ between servers: OpenAI counts reasoning within completion_tokens, xAI beside
it (then the total says so); DeepSeek and Moonshot name cache hits their own way. What is
written to the cache for 12 hours counts with what is written for an hour: the longer life.
Source: openai-python 3.54 types/completion_usage.py, types/responses/response_usage.py;
api-docs.deepseek.com "usage"; docs.x.ai "reasoning tokens".
"""

from __future__ import annotations

import msgspec

from tallystick.usage.model import Usage


class _CacheWrites(msgspec.Struct):
    ttl_12h_tokens: int | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: _CacheWrites | None = None
    cache_creation_tokens: int | None = None
    audio_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class OpenAIUsage(msgspec.Struct):
    """`usage` of chat completions and embeddings."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    prompt_cache_hit_tokens: int | None = None
    cached_tokens: int | None = None


class ResponsesUsage(OpenAIUsage):
    """The same under the names that Responses has for it."""

    prompt_tokens: int | None = msgspec.field(default=None, name="input_tokens")
    prompt_tokens_details: _InputDetails | None = msgspec.field(
        default=None, name="input_tokens_details"
    )
    completion_tokens: int | None = msgspec.field(default=None, name="output_tokens")
    completion_tokens_details: _OutputDetails | None = msgspec.field(
        default=None, name="output_tokens_details"
    )


_NO_INPUT_DETAILS = _InputDetails()
_NO_OUTPUT_DETAILS = _OutputDetails()


def usage_of(usage: OpenAIUsage) -> Usage:
    """Turn `usage` into ours; `reading.believed` makes it whole where it contradicts itself."""
    before = usage.prompt_tokens_details or _NO_INPUT_DETAILS
    after = usage.completion_tokens_details or _NO_OUTPUT_DETAILS
    tokens_input, tokens_output = usage.prompt_tokens or 0, usage.completion_tokens or 0
    reasoning = after.reasoning_tokens or 0
    if reasoning and usage.total_tokens == tokens_input + tokens_output + reasoning:
        tokens_output += reasoning
    read = before.cached_tokens or usage.prompt_cache_hit_tokens or usage.cached_tokens or 0
    written = before.cache_write_tokens or before.cache_creation_tokens or 0
    lives = before.cache_write_tokens_details
    long = (lives.ttl_12h_tokens or 0) if lives is not None else 0
    return Usage(
        tokens_input=tokens_input,
        tokens_output=tokens_output,
        tokens_cache_read=read,
        tokens_cache_write_5m=written - long if written > long else 0,
        tokens_cache_write_1h=long,
        tokens_reasoning=reasoning,
        tokens_input_audio=before.audio_tokens or 0,
        tokens_output_audio=after.audio_tokens or 0,
    )
