"""The audio part of a call: an event of its own, priced by the rate card's tier `audio`. Pure.

Providers bill tokens of sound at several times the price of text, so a call's one event
cannot say what they cost. What was sound becomes a second `token_usage` event of the call; facts
that have none (nearly all) carry nothing for it. Cached tokens are taken for text first.
"""

from __future__ import annotations

import msgspec

from tallystick.enforcement.calls.model import Usage

AUDIO_TIER = "audio"
"""The service tier by which rate cards price tokens of sound."""


def split_audio(usage: Usage) -> tuple[Usage, Usage | None]:
    """What a call used beside audio, and of audio (None: nothing).

    >>> text, audio = split_audio(Usage(tokens_input=9, tokens_input_audio=5, tokens_cache_read=6))
    >>> text.tokens_input, text.tokens_cache_read, audio.tokens_input, audio.tokens_cache_read
    (4, 4, 5, 2)
    """
    written = usage.tokens_cache_write_5m + usage.tokens_cache_write_1h
    heard = min(usage.tokens_input_audio, usage.tokens_input - written)
    spoken = min(usage.tokens_output_audio, usage.tokens_output - usage.tokens_reasoning)
    if heard <= 0 and spoken <= 0:
        return usage, None
    tokens_input = usage.tokens_input - heard
    cached = max(usage.tokens_cache_read + written - tokens_input, 0)
    text = msgspec.structs.replace(
        usage,
        tokens_input=tokens_input,
        tokens_output=usage.tokens_output - spoken,
        tokens_cache_read=usage.tokens_cache_read - cached,
        tokens_input_audio=0,
        tokens_output_audio=0,
    )
    audio = Usage(
        tokens_input=heard, tokens_output=spoken, tokens_cache_read=cached, quality=usage.quality
    )
    return text, audio
