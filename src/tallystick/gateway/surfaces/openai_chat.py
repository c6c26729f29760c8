"""OpenAI chat completions. Source: platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.gateway.estimate import HAS_AUDIO, bound_input, plainly
from tallystick.gateway.model import Asked
from tallystick.gateway.settings import Upstream
from tallystick.gateway.surfaces.surface import (
    encode_fields,
    field_of,
    maximum_of,
    model_of,
    read_fields,
    text_fields,
)
from tallystick.usage import Seen, StreamReader, openai_chat


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Chat:
    path = "/openai/v1/chat/completions"
    name = "openai_chat"
    speaks = "openai"
    upstream_path = "/chat/completions"

    def read(self, body: bytes) -> Asked:
        """Read a request; raises InvalidInput."""
        fields = read_fields(body)
        options: _StreamOptions = field_of(
            fields, "stream_options", _StreamOptions, _StreamOptions()
        )
        answers = max(*(field_of(fields, name, int, 1) for name in ("n", "best_of")), 1)
        return Asked(
            model=model_of(fields),
            fields=fields,
            tokens_input=bound_input(body),
            tokens_output_max=_output_max(fields, answers),
            answers=answers,
            is_stream=field_of(fields, "stream", bool, False),
            wants_usage=bool(options.include_usage),
            has_audio=_has_audio(fields, plainly(body)),
            service_tier=field_of(fields, "service_tier", str, ""),
            metadata=_said(fields),
        )

    def body_for(self, asked: Asked, model: str, upstream: Upstream) -> bytes:
        """With the target's model, and usage asked for in a stream."""
        if not asked.is_stream or asked.wants_usage or not upstream.has_stream_usage:
            return encode_fields(asked.fields, model)
        options = field_of(asked.fields, "stream_options", dict[str, msgspec.Raw], {})
        changes = {"stream_options": {**options, "include_usage": True}}
        return encode_fields(asked.fields, model, changes)

    def read_answer(self, body: bytes) -> Seen:
        """Read a whole answer."""
        return openai_chat.read_answer(body)

    def reader(self, asked: Asked) -> StreamReader:
        """A reader that hides usage from a client that did not ask for it."""
        return openai_chat.ChatReader(is_usage_hidden=not asked.wants_usage)


def _output_max(fields: Mapping[str, msgspec.Raw], answers: int) -> int | None:
    """The most output of all answers together; of two maxima the larger: servers take either."""
    named = [maximum_of(fields, name) for name in ("max_completion_tokens", "max_tokens")]
    ceiling = max((one for one in named if one is not None), default=None)
    return None if ceiling is None else ceiling * answers


def _has_audio(fields: Mapping[str, msgspec.Raw], body: bytes) -> bool:
    """Whether sound goes in, or is asked for."""
    if b"audio" not in body:
        return False
    asked = "audio" in field_of(fields, "modalities", list[str], [])
    return asked or HAS_AUDIO.search(body) is not None


def _said(fields: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    """What the request itself says of its work: metadata, and whose it is."""
    said = text_fields(fields, "metadata") if "metadata" in fields else {}
    user = field_of(fields, "user", str, "") if "user" in fields else ""
    return {"user": user, **said} if user else said


CHAT = _Chat()
