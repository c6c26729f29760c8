"""Anthropic messages. Source: docs.anthropic.com/en/api/messages and messages-count-tokens."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.gateway.estimate import bound_input, plainly
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
from tallystick.usage import Seen, StreamReader, anthropic

_WEB_SEARCHES_MAX = 10
"""Searches that are held for when the tool sets no max_uses."""


class _Tool(msgspec.Struct):
    type: str | None = None
    max_uses: int | None = None


class _Messages:
    path = "/anthropic/v1/messages"
    name = "anthropic_messages"
    speaks = "anthropic"
    upstream_path = "/messages"

    def read(self, body: bytes) -> Asked:
        """Read a request; raises InvalidInput."""
        fields = read_fields(body)
        said = text_fields(fields, "metadata")
        if user_id := said.pop("user_id", ""):
            said["user"] = user_id
        return Asked(
            model=model_of(fields),
            fields=fields,
            tokens_input=bound_input(body),
            tokens_output_max=maximum_of(fields, "max_tokens", least=0),  # 0 only fills the cache
            is_stream=field_of(fields, "stream", bool, False),
            has_cache_write=b'"cache_control"' in plainly(body),
            service_tier=_tier(fields),
            tools=_billed_tools(fields),
            metadata=said,
        )

    def body_for(self, asked: Asked, model: str, upstream: Upstream) -> bytes:
        """With the target's model."""
        return encode_fields(asked.fields, model)

    def read_answer(self, body: bytes) -> Seen:
        """Read a whole answer."""
        return anthropic.read_answer(body)

    def reader(self, asked: Asked) -> StreamReader:
        """A reader for one stream."""
        return anthropic.MessagesReader()


def _tier(fields: Mapping[str, msgspec.Raw]) -> str:
    """The tier that is asked for; fast mode is one."""
    is_fast = field_of(fields, "speed", str, "") == anthropic.FAST
    tier: str = field_of(fields, "service_tier", str, "")
    return anthropic.FAST if is_fast else tier


def _billed_tools(fields: Mapping[str, msgspec.Raw]) -> dict[str, int]:
    if "tools" not in fields:
        return {}
    for tool in field_of(fields, "tools", list[_Tool], []):
        if (tool.type or "").startswith("web_search"):
            return {"web_search": tool.max_uses or _WEB_SEARCHES_MAX}
    return {}


class _CountTokens(_Messages):
    path = "/anthropic/v1/messages/count_tokens"
    name = "anthropic_count"
    upstream_path = "/messages/count_tokens"


MESSAGES = _Messages()
MESSAGES_COUNT = _CountTokens()
