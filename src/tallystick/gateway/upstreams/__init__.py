"""Upstreams with a dialect of their own: requests and answers are translated on the wire.

Owns what an OpenAI chat request becomes at Gemini (generateContent) and Bedrock (Converse),
what an Anthropic message becomes at Bedrock (InvokeModel), and the way back, streams
included. Never drops what it cannot carry over: such a request is refused, and the field is
named. Everything behind it (usage, limits, ends of streams) sees the surface's own protocol.
Keeps nothing.
"""

from tallystick.gateway.upstreams.choosing import able, translation_of
from tallystick.gateway.upstreams.sending import send_translated

__all__ = ["able", "send_translated", "translation_of"]
