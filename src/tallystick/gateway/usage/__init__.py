"""Usage: what a provider says was used, in whichever shape its answers and streams have.

Owns how each provider's counts become ours (input with cached tokens, output with
reasoning). Never guesses silently: what was estimated says so. Keeps nothing of the text
but how much of it there was.
"""

from tallystick.gateway.usage import anthropic, openai_chat, openai_responses
from tallystick.gateway.usage.reading import StreamReader, believed, estimated_usage

__all__ = [
    "StreamReader",
    "anthropic",
    "believed",
    "estimated_usage",
    "openai_chat",
    "openai_responses",
]
