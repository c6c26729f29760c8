"""An OpenAI chat request as Bedrock's Converse takes it.

Source: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.gateway.upstreams.chat_request import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    DeveloperMessage,
    FilePart,
    Message,
    NamedTool,
    Part,
    RefusalPart,
    ResponseFormat,
    SystemMessage,
    TextPart,
    ToolMessage,
    arguments_of,
    inline_of,
    parts_of,
    system_parts,
    text_of,
)
from tallystick.gateway.upstreams.translation import Unsupported

_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}


def write_request(request: ChatRequest) -> dict[str, Any]:
    """Converse's body; raises Unsupported."""
    system = system_parts(request.messages)
    body: dict[str, Any] = {"messages": _turns(request.messages)}
    if system:
        body["system"] = system
    if limits := _limits(request):
        body["inferenceConfig"] = limits
    if request.tools and request.tool_choice != "none":
        body["toolConfig"] = _tools(request)
    if request.response_format is not None and request.response_format.type != "text":
        body["outputConfig"] = {"textFormat": _form(request.response_format)}
    return body


def _limits(request: ChatRequest) -> dict[str, Any]:
    chosen = {
        "maxTokens": request.output_max,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": request.stops,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _turns(messages: list[Message]) -> list[dict[str, Any]]:
    """Turns of the user and the model, in turn; what functions answered is the user's."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if isinstance(message, SystemMessage | DeveloperMessage):
            continue
        role = "assistant" if isinstance(message, AssistantMessage) else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    if isinstance(message, ToolMessage):
        text = text_of(message.content, "messages.content")
        result = {"toolUseId": message.tool_call_id, "content": [{"text": text}]}
        return [{"toolResult": result}]
    blocks = [_block(part) for part in parts_of(message.content)]
    if isinstance(message, AssistantMessage):
        if message.refusal:
            blocks.append({"text": message.refusal})
        for call in message.tool_calls or ():
            used = {"toolUseId": call.id, "name": call.function.name, "input": arguments_of(call)}
            blocks.append({"toolUse": used})
    return blocks


def _block(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, RefusalPart):
        return {"text": part.refusal}
    inline = inline_of(part)
    form = inline.media_type.partition("/")[2]
    source = {"bytes": inline.data}
    if isinstance(part, AudioPart):
        return {"audio": {"format": form, "source": source}}
    if not isinstance(part, FilePart):
        return {"image": {"format": form, "source": source}}
    if inline.media_type not in _DOCUMENTS:
        raise Unsupported(f"a file of {inline.media_type}", field="file.file_data")
    return {"document": {"format": _DOCUMENTS[inline.media_type], "name": "file", "source": source}}


def _tools(request: ChatRequest) -> dict[str, Any]:
    config: dict[str, Any] = {"tools": []}
    for tool in request.tools or ():
        function = tool.function
        spec: dict[str, Any] = {
            "name": function.name,
            "inputSchema": {"json": function.parameters or {"type": "object"}},
        }
        if function.description:
            spec["description"] = function.description
        if function.strict is not None:
            spec["strict"] = function.strict
        config["tools"].append({"toolSpec": spec})
    choice = request.tool_choice
    if isinstance(choice, NamedTool):
        config["toolChoice"] = {"tool": {"name": choice.function.name}}
    elif choice is not None:
        config["toolChoice"] = {"any" if choice == "required" else "auto": {}}
    return config


def _form(form: ResponseFormat) -> dict[str, Any]:
    if form.json_schema is None or form.json_schema.schema is None:
        raise Unsupported("response_format needs a json_schema here", field="response_format")
    described: dict[str, Any] = {
        "name": form.json_schema.name,
        "schema": msgspec.json.encode(form.json_schema.schema).decode(),
    }
    if form.json_schema.description:
        described["description"] = form.json_schema.description
    return {"type": "json_schema", "structure": {"jsonSchema": described}}
