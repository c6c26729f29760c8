"""OpenAI chat at Google's Gemini API: generateContent and streamGenerateContent.

Thoughts are counted beside candidates there and within the output here; cached tokens are
within the prompt in both. Thought signatures travel in a tool call's extra_content.google, as
at Google's own OpenAI-compatible endpoint. A stream is whole when a candidate has said why it
ended. Models that answer with pictures or speech are refused: their output has other prices.
Source: ai.google.dev/api/generate-content, ai.google.dev/gemini-api/docs/openai.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tallystick.gateway.model import Asked
from tallystick.gateway.upstreams.chat_answer import (
    Choice,
    ChunkWriter,
    Counts,
    tool_call,
    write_answer,
)
from tallystick.gateway.upstreams.chat_request import (
    AssistantMessage,
    ChatRequest,
    DeveloperMessage,
    Message,
    NamedTool,
    Part,
    RefusalPart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    arguments_of,
    inline_of,
    parts_of,
    read_chat,
    result_of,
    system_parts,
    text_of,
)
from tallystick.gateway.upstreams.translation import Unsupported, quoted
from tallystick.usage.server_sent import EventSplitter, event_text

_CARRIED = frozenset(ChatRequest.__struct_fields__)
_OTHER_OUTPUT = ("-image", "-tts", "-live", "native-audio")
_THINKING_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
"""Of Gemini 2.5, by its documentation; later models have levels of the same names."""
_FINISHES = {"STOP": "stop", "MAX_TOKENS": "length"}
_BLOCKED = frozenset(
    ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "LANGUAGE")
)
_SIGNATURE = "thought_signature"


class _ForModality(msgspec.Struct, rename="camel"):
    modality: str = ""
    token_count: int = 0


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    cached_content_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    prompt_tokens_details: list[_ForModality] = []
    candidates_tokens_details: list[_ForModality] = []


class _Call(msgspec.Struct):
    name: str = ""
    args: dict[str, Any] | None = None


class _Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    function_call: _Call | None = None
    thought_signature: str | None = None


class _Content(msgspec.Struct):
    parts: list[_Part] = []


class _Candidate(msgspec.Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    index: int = 0


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Answer(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] = []
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str = ""
    response_id: str = ""
    error: msgspec.Raw | None = None


class _Error(msgspec.Struct):
    message: str = ""


class _Failed(msgspec.Struct):
    error: _Error


_read_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


class GeminiChat:
    """Chat completions by generateContent."""

    speaks = "openai"

    def path(self, model: str, *, is_stream: bool) -> str:
        """The model's method; raises Unsupported."""
        if any(mark in model for mark in _OTHER_OUTPUT):
            raise Unsupported("models that answer with more than text", field="model")
        method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
        return f"/models/{quoted(model)}:{method}"

    def body(self, asked: Asked, model: str, beta: str) -> bytes:
        """The request; raises Unsupported."""
        return _encode(write_request(read_chat(asked.fields, _CARRIED), model))

    def answer(self, body: bytes, model: str, created: int) -> bytes:
        """A whole answer."""
        read = _read_answer(body)
        answer_id = read.response_id or "0"
        return write_answer(
            f"chatcmpl-{answer_id}",
            read.model_version or model,
            created,
            _choices(read, answer_id, {}),
            counts_of(read.usage_metadata),
        )

    def error_message(self, body: bytes) -> str:
        """What an error says; streams asked for with alt=sse have it in a list."""
        try:
            return msgspec.json.decode(body.strip().strip(b"[]"), type=_Failed).error.message
        except msgspec.DecodeError:
            return ""

    def stream(self, model: str, created: int) -> GeminiStream:
        """A translator for one stream."""
        return GeminiStream(model, created)


class GeminiStream:
    """Turns chunks of streamGenerateContent into chat completion chunks."""

    def __init__(self, model: str, created: int) -> None:
        self._splitter = EventSplitter()
        self._writer = ChunkWriter(model, created)
        self._calls: dict[int, int] = {}
        """Choice -> tool calls that it has made so far."""
        self._counts: Counts | None = None
        self._is_whole = False

    def feed(self, piece: bytes) -> bytes:
        """Take what came; return chunks."""
        return b"".join([self._event(event) for event in self._splitter.feed(piece)])

    def _event(self, event: bytes) -> bytes:
        text = event_text(event)
        if not text:
            return b""
        try:
            read = _read_answer(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return event  # as a surface's own: passed on, and not read
        if read.error is not None:
            return self._writer.error("the upstream ended its stream", "upstream_error_event")
        return self._chunks(read)

    def _chunks(self, read: _Answer) -> bytes:
        if read.response_id:
            self._writer.answer_id = f"chatcmpl-{read.response_id}"
        self._writer.model = read.model_version or self._writer.model
        self._counts = counts_of(read.usage_metadata) or self._counts
        chunks = []
        for choice in _choices(read, read.response_id or "0", self._calls):
            self._is_whole = self._is_whole or choice.finish is not None
            counts = self._counts if choice.finish is None else None
            chunks.append(self._writer.chunk(choice, counts))
        return b"".join(chunks)

    def end(self) -> bytes:
        """Usage and [DONE], once a candidate has said why it ended."""
        rest = self._event(self._splitter.rest + b"\n\n") if self._splitter.rest else b""
        return rest + (self._writer.last(self._counts) if self._is_whole else b"")


def counts_of(usage: _Usage | None) -> Counts | None:
    """Gemini's counts as OpenAI's; what tools put into the prompt is input."""
    if usage is None:
        return None
    return Counts(
        tokens_input=usage.prompt_token_count + usage.tool_use_prompt_token_count,
        tokens_output=usage.candidates_token_count + usage.thoughts_token_count,
        cached=usage.cached_content_token_count,
        reasoning=usage.thoughts_token_count,
        audio_input=_audio(usage.prompt_tokens_details),
        audio_output=_audio(usage.candidates_tokens_details),
    )


def _audio(details: list[_ForModality]) -> int:
    return sum(one.token_count for one in details if one.modality == "AUDIO")


def _choices(read: _Answer, answer_id: str, calls: dict[int, int]) -> list[Choice]:
    """The candidates; `calls` counts tool calls, in a stream from chunk to chunk."""
    if not read.candidates and read.prompt_feedback and read.prompt_feedback.block_reason:
        refusal = f"the prompt was blocked: {read.prompt_feedback.block_reason}"
        return [Choice(0, None, "", [], "content_filter", refusal)]
    return [_choice(one, answer_id, calls) for one in read.candidates]


def _choice(candidate: _Candidate, answer_id: str, calls: dict[int, int]) -> Choice:
    parts = candidate.content.parts if candidate.content else []
    text = "".join(part.text for part in parts if part.text and not part.thought)
    thoughts = "".join(part.text for part in parts if part.text and part.thought)
    made = []
    for part in parts:
        if part.function_call is not None:
            number = calls.get(candidate.index, 0)
            calls[candidate.index] = number + 1
            made.append(_tool_call(part, f"call_{answer_id}_{number}", number))
    finish = _finish(candidate.finish_reason, has_calls=calls.get(candidate.index, 0) > 0)
    return Choice(candidate.index, text or None, thoughts, made, finish)


def _tool_call(part: _Part, call_id: str, index: int) -> dict[str, Any]:
    assert part.function_call is not None
    arguments = _encode(part.function_call.args or {}).decode()
    call = {**tool_call(call_id, part.function_call.name, arguments), "index": index}
    if part.thought_signature:
        call["extra_content"] = {"google": {_SIGNATURE: part.thought_signature}}
    return call


def _finish(reason: str | None, *, has_calls: bool) -> str | None:
    if reason is None or reason == "FINISH_REASON_UNSPECIFIED":
        return None
    if reason in _BLOCKED:
        return "content_filter"
    return "tool_calls" if has_calls and reason == "STOP" else _FINISHES.get(reason, "stop")


def write_request(request: ChatRequest, model: str) -> dict[str, Any]:
    """generateContent's body; raises Unsupported."""
    system = system_parts(request.messages)
    body: dict[str, Any] = {"contents": _contents(request.messages)}
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools:
        declared = [_declaration(tool.function) for tool in request.tools]
        body["tools"] = [{"functionDeclarations": declared}]
    if request.tool_choice is not None:
        body["toolConfig"] = {"functionCallingConfig": _calling(request.tool_choice)}
    if generation := _generation(request, model):
        body["generationConfig"] = generation
    return body


def _contents(messages: list[Message]) -> list[dict[str, Any]]:
    """Turns of the user and the model; what functions answered is one turn of the user."""
    names: dict[str, str] = {}
    contents: list[dict[str, Any]] = []
    for message in messages:
        if isinstance(message, SystemMessage | DeveloperMessage):
            continue
        role = "model" if isinstance(message, AssistantMessage) else "user"
        if isinstance(message, AssistantMessage):
            names.update({call.id: call.function.name for call in message.tool_calls or ()})
            parts = _model_parts(message)
        elif isinstance(message, ToolMessage):
            parts = [_function_response(message, names)]
        else:
            parts = [_part(part) for part in parts_of(message.content)]
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        elif parts:
            contents.append({"role": role, "parts": parts})
    return contents


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, RefusalPart):
        return {"text": part.refusal}
    inline = inline_of(part)
    return {"inlineData": {"mimeType": inline.media_type, "data": inline.data}}


def _model_parts(message: AssistantMessage) -> list[dict[str, Any]]:
    parts = [_part(part) for part in parts_of(message.content)]
    if message.refusal:
        parts.append({"text": message.refusal})
    return parts + [_function_call(call) for call in message.tool_calls or ()]


def _function_call(call: ToolCall) -> dict[str, Any]:
    part: dict[str, Any] = {
        "functionCall": {"name": call.function.name, "args": arguments_of(call)}
    }
    google = (call.extra_content or {}).get("google")
    if isinstance(google, dict) and (signature := google.get(_SIGNATURE)):
        part["thoughtSignature"] = signature
    return part


def _function_response(message: ToolMessage, names: Mapping[str, str]) -> dict[str, Any]:
    name = message.name or names.get(message.tool_call_id)
    if not name:
        raise Unsupported(
            "tool_call_id names no call of an earlier message", field="messages.tool_call_id"
        )
    result = result_of(text_of(message.content, "messages.content"))
    return {"functionResponse": {"name": name, "response": result}}


def _declaration(function: Any) -> dict[str, Any]:
    declared = {"name": function.name}
    if function.description:
        declared["description"] = function.description
    if function.parameters is not None:
        declared["parametersJsonSchema"] = function.parameters
    return declared


def _calling(choice: str | NamedTool) -> dict[str, Any]:
    if isinstance(choice, NamedTool):
        return {"mode": "ANY", "allowedFunctionNames": [choice.function.name]}
    return {"mode": {"none": "NONE", "auto": "AUTO", "required": "ANY"}[choice]}


def _generation(request: ChatRequest, model: str) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "maxOutputTokens": request.output_max,
        "stopSequences": request.stops,
        "candidateCount": request.n if request.n and request.n > 1 else None,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
    }
    form = request.response_format
    if form is not None and form.type != "text":
        chosen["responseMimeType"] = "application/json"
        if form.json_schema is not None:
            chosen["responseJsonSchema"] = form.json_schema.schema
    if request.reasoning_effort is not None:
        chosen["thinkingConfig"] = _thinking(request.reasoning_effort, model)
    return {name: value for name, value in chosen.items() if value is not None}


def _thinking(effort: str, model: str) -> dict[str, Any]:
    if effort not in _THINKING_BUDGETS:
        raise Unsupported(
            f"reasoning_effort is one of {', '.join(_THINKING_BUDGETS)} here",
            field="reasoning_effort",
        )
    if model.startswith("gemini-2"):
        return {"thinkingBudget": _THINKING_BUDGETS[effort]}
    return {"thinkingLevel": "minimal" if effort == "none" else effort}
