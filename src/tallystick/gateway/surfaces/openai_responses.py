"""OpenAI Responses. Source: platform.openai.com/docs/api-reference/responses.

Background responses are refused: they end after their request, where nobody would see what
they used. Stored context (previous_response_id, conversation, prompt) cannot be counted
here: such a call may cost more than was held, and is then charged above its hold.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.errors import InvalidInput
from tallystick.gateway.estimate import bound_input
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
from tallystick.usage import Seen, StreamReader, openai_responses

_TOOL_CALLS_MAX = 10
"""Calls of a billed tool that are held for when the request sets no max_tool_calls."""
_BILLED_TOOLS = ("web_search", "file_search", "code_interpreter", "image_generation")


class _Tool(msgspec.Struct):
    type: str = ""


class _Responses:
    path = "/openai/v1/responses"
    name = "openai_responses"
    speaks = "openai"
    upstream_path = "/responses"

    def read(self, body: bytes) -> Asked:
        """Read a request; raises InvalidInput."""
        fields = read_fields(body)
        if field_of(fields, "background", bool, False):
            raise InvalidInput(
                "background responses cannot be limited or charged here; leave background out",
                code="background_not_supported",
                field="background",
            )
        return Asked(
            model=model_of(fields),
            fields=fields,
            tokens_input=bound_input(body),
            tokens_output_max=maximum_of(fields, "max_output_tokens"),
            is_stream=field_of(fields, "stream", bool, False),
            service_tier=field_of(fields, "service_tier", str, ""),
            tools=_billed_tools(fields),
            metadata=_said(fields),
        )

    def body_for(self, asked: Asked, model: str, upstream: Upstream) -> bytes:
        """With the target's model."""
        return encode_fields(asked.fields, model)

    def read_answer(self, body: bytes) -> Seen:
        """Read a whole answer."""
        return openai_responses.read_answer(body)

    def reader(self, asked: Asked) -> StreamReader:
        """A reader for one stream."""
        return openai_responses.ResponsesReader()


def _billed_tools(fields: Mapping[str, msgspec.Raw]) -> dict[str, int]:
    if "tools" not in fields:
        return {}
    calls = field_of(fields, "max_tool_calls", int, _TOOL_CALLS_MAX)
    named = [tool.type for tool in field_of(fields, "tools", list[_Tool], [])]
    return {name: calls for name in _BILLED_TOOLS if any(given.startswith(name) for given in named)}


def _said(fields: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    said = text_fields(fields, "metadata")
    user = field_of(fields, "user", str, "")
    return {"user": user, **said} if user else said


class _InputTokens(_Responses):
    path = "/openai/v1/responses/input_tokens"
    name = "openai_responses_count"
    upstream_path = "/responses/input_tokens"


RESPONSES = _Responses()
RESPONSES_COUNT = _InputTokens()
