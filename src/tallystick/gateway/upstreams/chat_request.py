"""An OpenAI chat request read in whole, for upstreams that are told it in other words.

Unknown fields are refused by name at every level. What only speaks to us (user, metadata),
and values that ask for nothing (n: 1), need no carrying over.
Source: openai-python 3.54 types/chat/completion_create_params.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from tallystick.gateway.upstreams.translation import Unsupported

_FOR_US = frozenset(
    ("model", "messages", "stream", "stream_options", "user", "metadata", "store",
     "safety_identifier", "prompt_cache_key")
)  # fmt: skip
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "parallel_tool_calls": (True,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "tools": ([],),
    "stop": ([],),
}
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,(.*)", re.DOTALL)


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    """A struct that refuses what it does not know."""


class TextPart(Closed, tag="text", tag_field="type"):
    """Text."""

    text: str


class RefusalPart(Closed, tag="refusal", tag_field="type"):
    """What a model said instead of an answer, in an earlier turn."""

    refusal: str


class ImageUrl(Closed):
    """A picture's address: data: URLs only."""

    url: str
    detail: str | None = None


class ImagePart(Closed, tag="image_url", tag_field="type"):
    """A picture."""

    image_url: ImageUrl


class Audio(Closed):
    """Sound in base64."""

    data: str
    format: str


class AudioPart(Closed, tag="input_audio", tag_field="type"):
    """Sound."""

    input_audio: Audio


class FileContent(Closed):
    """A file as a data: URL; files that were uploaded elsewhere are not known here."""

    file_data: str
    filename: str | None = None


class FilePart(Closed, tag="file", tag_field="type"):
    """A file."""

    file: FileContent


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class CalledFunction(Closed):
    """A function that a model called, its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Closed):
    """A call of a function in an earlier answer."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None
    extra_content: dict[str, Any] | None = None
    """Where Google's own OpenAI-compatible endpoint keeps thought signatures."""


class SystemMessage(Closed, tag="system", tag_field="role"):
    """What the app tells the model."""

    content: str | list[Part]
    name: str | None = None


class DeveloperMessage(Closed, tag="developer", tag_field="role"):
    """The same, by its newer name."""

    content: str | list[Part]
    name: str | None = None


class UserMessage(Closed, tag="user", tag_field="role"):
    """A turn of the user."""

    content: str | list[Part]
    name: str | None = None


class AssistantMessage(Closed, tag="assistant", tag_field="role"):
    """A turn of the model, as answers have it; its reasoning is not sent again."""

    content: str | list[Part] | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class ToolMessage(Closed, tag="tool", tag_field="role"):
    """What a function answered."""

    tool_call_id: str
    content: str | list[Part]
    name: str | None = None


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Closed):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Closed):
    """A tool; only functions are known in other dialects."""

    function: Function
    type: Literal["function"] = "function"


class NamedFunction(Closed):
    """A function's name."""

    name: str


class NamedTool(Closed):
    """The tool that must be called."""

    function: NamedFunction
    type: Literal["function"] = "function"


class JsonSchema(Closed):
    """The schema that an answer follows."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Closed):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatRequest(msgspec.Struct):
    """What other dialects may be told; `check_fields` has refused the rest."""

    messages: list[Message]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: ResponseFormat | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: str | None = None

    @property
    def output_max(self) -> int | None:
        """The most that an answer may have."""
        own = self.max_completion_tokens
        return self.max_tokens if own is None else own

    @property
    def stops(self) -> list[str] | None:
        """Texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or None


class Inline(NamedTuple):
    """A picture, a sound or a file within the request."""

    media_type: str
    data: str
    """base64."""
    name: str = ""


def read_chat(fields: Mapping[str, msgspec.Raw], carried: frozenset[str]) -> ChatRequest:
    """Read a request, of which the upstream can be told `carried`; raises Unsupported."""
    check_fields(fields, carried)
    try:
        return msgspec.json.decode(msgspec.json.encode(fields), type=ChatRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        place = _place_of(str(error))
        raise Unsupported(f"this upstream cannot be told it: {error}", field=place) from error


def _place_of(message: str) -> str:
    """Where a decoder's message says that a field is.

    >>> _place_of("Object contains unknown field `name` - at `$.messages[0]`")
    'messages[0].name'
    """
    path = message.rpartition("`$.")[2].rstrip("`") if "`$." in message else ""
    unknown = re.search("unknown field `([^`]*)`", message)
    return ".".join(part for part in (path, unknown[1] if unknown else "") if part)


def check_fields(fields: Mapping[str, msgspec.Raw], carried: frozenset[str]) -> None:
    """Refuse fields that would have to be left out; raises Unsupported.

    >>> check_fields({"seed": msgspec.Raw(b"1")}, frozenset())
    Traceback (most recent call last):
    ...
    tallystick.gateway.upstreams.translation.Unsupported: this upstream has no seed; leave it out
    """
    for name, raw in fields.items():
        if name in carried or name in _FOR_US:
            continue
        value = msgspec.json.decode(raw)
        if value is not None and value not in _NEUTRAL.get(name, ()):
            raise Unsupported(f"this upstream has no {name}; leave it out", field=name)


def parts_of(content: str | list[Part] | None) -> list[Part]:
    """The parts of a message, text included."""
    if content is None or isinstance(content, str):
        return [TextPart(content)] if content else []
    return content


def system_parts(messages: list[Message]) -> list[dict[str, str]]:
    """What the system and the developer say, each text as {"text": ...}."""
    return [
        {"text": text_of(message.content, "messages.content")}
        for message in messages
        if isinstance(message, SystemMessage | DeveloperMessage)
    ]


def text_of(content: str | list[Part] | None, field: str) -> str:
    """The text of a message that has nothing else; raises Unsupported."""
    parts = parts_of(content)
    if any(not isinstance(part, TextPart) for part in parts):
        raise Unsupported(f"{field} may have text only here", field=field)
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def inline_of(part: ImagePart | AudioPart | FilePart) -> Inline:
    """A part's content; raises Unsupported for addresses, which nobody fetches here."""
    if isinstance(part, AudioPart):
        return Inline(f"audio/{part.input_audio.format}", part.input_audio.data)
    if isinstance(part, ImagePart):
        url, field, name = part.image_url.url, "image_url.url", ""
    else:
        url, field, name = part.file.file_data, "file.file_data", part.file.filename or ""
    match = _DATA_URL.fullmatch(url)
    if match is None:
        raise Unsupported(f"{field} must be a data: URL with base64 here", field=field)
    return Inline(match[1], match[2], name)


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """A call's arguments as an object; raises Unsupported."""
    try:
        return msgspec.json.decode(call.function.arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unsupported("arguments must be a JSON object here", field="arguments") from error


def result_of(text: str) -> dict[str, Any]:
    """What a function answered, as an object.

    >>> result_of('{"a": 1}'), result_of("fine")
    ({'a': 1}, {'result': 'fine'})
    """
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {"result": text}
