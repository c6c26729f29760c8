"""Which surface is translated for which kind of upstream, and what can carry a request."""

from __future__ import annotations

from collections.abc import Sequence

from tallystick.gateway.model import Asked
from tallystick.gateway.routing import Choice
from tallystick.gateway.settings import Upstream
from tallystick.gateway.upstreams.bedrock import ConverseChat, InvokeMessages
from tallystick.gateway.upstreams.gemini import GeminiChat
from tallystick.gateway.upstreams.translation import Translation, Unsupported

_TRANSLATIONS: dict[tuple[str, str], Translation] = {
    ("gemini", "openai_chat"): GeminiChat(),
    ("bedrock", "openai_chat"): ConverseChat(),
    ("bedrock", "anthropic_messages"): InvokeMessages(),
}


def translation_of(upstream: Upstream, surface: str) -> Translation | None:
    """How a surface is translated for an upstream; None: it speaks the surface's protocol."""
    return _TRANSLATIONS.get((upstream.kind, surface)) if upstream.is_translated else None


def able(choices: Sequence[Choice], surface: str, asked: Asked, beta: str = "") -> list[Choice]:
    """The choices that can carry a request whole; Unsupported when none of several can."""
    able_ones = []
    refused: Unsupported | None = None
    for choice in choices:
        try:
            _check(choice, surface, asked, beta)
            able_ones.append(choice)
        except Unsupported as error:
            refused = refused or error
    if refused is not None and not able_ones:
        raise refused
    return able_ones


def _check(choice: Choice, surface: str, asked: Asked, beta: str) -> None:
    if not choice.upstream.is_translated:
        return
    translation = translation_of(choice.upstream, surface)
    if translation is None:
        raise Unsupported(
            f"{choice.model} answers chat completions here, not {surface}",
            code="surface_not_supported",
            field="model",
        )
    translation.path(choice.model, is_stream=asked.is_stream)
    translation.body(asked, choice.model, beta)
