"""Surfaces: the endpoints of providers that apps know, each read and answered in its own shape.

Owns what is read of a request, what must be changed before it is passed on, and errors in
the provider's shape. Never interprets a prompt. Keeps nothing.
"""

from tallystick.gateway.surfaces.anthropic_messages import MESSAGES, MESSAGES_COUNT
from tallystick.gateway.surfaces.openai_chat import CHAT
from tallystick.gateway.surfaces.openai_embeddings import EMBEDDINGS
from tallystick.gateway.surfaces.openai_responses import RESPONSES, RESPONSES_COUNT
from tallystick.gateway.surfaces.surface import Surface

SURFACES: tuple[Surface, ...] = (CHAT, RESPONSES, EMBEDDINGS, MESSAGES)
COUNTING: tuple[Surface, ...] = (RESPONSES_COUNT, MESSAGES_COUNT)
"""Token counts: free at the provider, so passed on without a hold."""

__all__ = ["COUNTING", "SURFACES", "Surface"]
