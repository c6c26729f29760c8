"""Usage: what a provider says was used, in whichever shape its answers and streams have.

Owns how an answer is read, whole or as server-sent events, and how each provider's counts
become ours (input with cached tokens, output with reasoning). The gateway and the SDK read by
it, so that both charge the same. Never guesses silently: what was estimated says so. Never
talks to anyone, and knows nothing of prices. Keeps nothing of the text but how much of it
there was. Time: none.
"""

from tallystick.usage import anthropic, openai_chat, openai_responses
from tallystick.usage.model import Seen, Usage
from tallystick.usage.reading import StreamReader, believed, estimated_usage, used
from tallystick.usage.streamed import StreamedAnswer

__all__ = [
    "Seen",
    "StreamReader",
    "StreamedAnswer",
    "Usage",
    "anthropic",
    "believed",
    "estimated_usage",
    "openai_chat",
    "openai_responses",
    "used",
]
