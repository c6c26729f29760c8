"""What the scripted upstream says: bodies and stream events in each provider's own shape.

Shapes follow the types of the official SDKs: openai 3.54 (ChatCompletion,
ChatCompletionChunk, Response, ResponseStreamEvent, CreateEmbeddingResponse) and
anthropic 2.12 (Message, RawMessageStreamEvent).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from tests.upstream.scripts import Script

WORD = "tally "
_CREATED = 1_790_000_000
_encode = msgspec.json.Encoder().encode


def openai_usage(script: Script) -> dict[str, Any]:
    return {
        "prompt_tokens": script.tokens_input,
        "completion_tokens": script.tokens_output,
        "total_tokens": script.tokens_input + script.tokens_output,
        "prompt_tokens_details": {
            "cached_tokens": script.tokens_cached,
            "audio_tokens": script.tokens_heard,
        },
        "completion_tokens_details": {
            "reasoning_tokens": script.tokens_reasoning,
            "audio_tokens": script.tokens_spoken,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def responses_usage(script: Script) -> dict[str, Any]:
    return {
        "input_tokens": script.tokens_input,
        "input_tokens_details": {"cached_tokens": script.tokens_cached},
        "output_tokens": script.tokens_output,
        "output_tokens_details": {"reasoning_tokens": script.tokens_reasoning},
        "total_tokens": script.tokens_input + script.tokens_output,
    }


def anthropic_usage(script: Script, output: int) -> dict[str, Any]:
    """Anthropic's input_tokens leave cached ones out."""
    return {
        "input_tokens": script.tokens_input - script.tokens_cached - script.tokens_written,
        "cache_creation_input_tokens": script.tokens_written,
        "cache_read_input_tokens": script.tokens_cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": script.tokens_written,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": script.tokens_reasoning},
        "server_tool_use": None,
        "service_tier": "standard" if script.tier in ("default", "fast") else script.tier,
        "speed": "fast" if script.tier == "fast" else "standard",
        "inference_geo": "global",
    }


_TOOL_ARGUMENTS = '{"city":"Oslo"}'
_JSON_TEXT = '{"city":"Oslo","degrees":7}'


def _text(script: Script) -> str:
    return _JSON_TEXT if script.answer == "json" else WORD * script.tokens_output


def chat(script: Script, model: str, number: int) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": _text(script), "refusal": None}
    message["annotations"] = []
    finish = "stop"
    if script.answer == "tool":
        finish = "tool_calls"
        call = {"name": "get_weather", "arguments": _TOOL_ARGUMENTS}
        message["content"] = None
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
    answer = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": _CREATED,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": openai_usage(script),
        "service_tier": script.tier,
        "system_fingerprint": "fp_tally",
    }
    if script.name == "no_usage":
        del answer["usage"]
    return _encode(answer)


def chat_events(script: Script, model: str, number: int, has_usage: bool) -> Iterator[bytes]:
    def chunk(choices: list[Any], **more: Any) -> bytes:
        return b"data: " + _encode(
            {
                "id": f"chatcmpl-{number}",
                "object": "chat.completion.chunk",
                "created": _CREATED,
                "model": model,
                "service_tier": script.tier,
                "system_fingerprint": "fp_tally",
                "choices": choices,
                **more,
            }
        )

    def choice(delta: dict[str, Any], finish: str | None = None) -> list[Any]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]

    empty = {"usage": None} if has_usage and script.usage_form == "own_chunk" else {}
    yield chunk(choice({"role": "assistant", "content": "", "refusal": None}), **empty)
    if script.answer == "tool":
        head = {"name": "get_weather", "arguments": ""}
        call = {"index": 0, "id": "call_1", "type": "function", "function": head}
        yield chunk(choice({"tool_calls": [call]}), **empty)
        body = {"index": 0, "function": {"arguments": _TOOL_ARGUMENTS}}
        yield chunk(choice({"tool_calls": [body]}), **empty)
    elif script.answer == "json":
        yield chunk(choice({"content": _JSON_TEXT}), **empty)
    else:
        for _ in range(script.tokens_output):
            yield chunk(choice({"content": WORD}), **empty)
    finish = "tool_calls" if script.answer == "tool" else "stop"
    usage = {"usage": openai_usage(script)} if has_usage and script.name != "no_usage" else {}
    is_last = script.usage_form == "last_chunk"
    yield chunk(choice({}, finish), **(usage if is_last else empty))
    if usage and not is_last:
        yield chunk([], **usage)
    yield b"data: [DONE]"


def response(script: Script, model: str, number: int, status: str = "completed") -> dict[str, Any]:
    content = {"type": "output_text", "text": _text(script), "annotations": [], "logprobs": []}
    item = {
        "id": f"msg_{number}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [content],
    }
    if script.answer == "tool":
        item = {
            "id": f"fc_{number}",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": "get_weather",
            "arguments": _TOOL_ARGUMENTS,
        }
    is_done = status == "completed"
    summary = [{"type": "summary_text", "text": "It adds up."}]
    reasoning = {"id": f"rs_{number}", "type": "reasoning", "summary": summary}
    thought = [reasoning] if script.is_reasoning else []
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": _CREATED,
        "completed_at": _CREATED + 1 if is_done else None,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": model,
        "output": [*thought, item] if is_done else [],
        "parallel_tool_calls": True,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": "low", "summary": "auto"} if script.is_reasoning else None,
        "safety_identifier": None,
        "service_tier": script.tier,
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": responses_usage(script) if is_done and script.name != "no_usage" else None,
        "user": None,
        "metadata": {},
    }


def response_events(script: Script, model: str, number: int) -> Iterator[bytes]:
    sequence = 0

    def event(kind: str, **more: Any) -> bytes:
        nonlocal sequence
        text = _encode({"type": kind, "sequence_number": sequence, **more})
        sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + text

    started = response(script, model, number, "in_progress")
    done = response(script, model, number)
    item = done["output"][-1]
    where = {"item_id": item["id"], "output_index": 0}
    yield event("response.created", response=started)
    yield event("response.in_progress", response=started)
    if script.answer == "tool":
        yield event("response.output_item.added", output_index=0, item={**item, "arguments": ""})
        yield event("response.function_call_arguments.delta", **where, delta=_TOOL_ARGUMENTS)
        yield event(
            "response.function_call_arguments.done",
            **where, name="get_weather", arguments=_TOOL_ARGUMENTS,
        )  # fmt: skip
    else:
        part = item["content"][0]
        empty = {**item, "status": "in_progress", "content": []}
        where["content_index"] = 0
        yield event("response.output_item.added", output_index=0, item=empty)
        yield event("response.content_part.added", **where, part={**part, "text": ""})
        for piece in [_JSON_TEXT] if script.answer == "json" else [WORD] * script.tokens_output:
            yield event("response.output_text.delta", **where, delta=piece, logprobs=[])
        yield event("response.output_text.done", **where, text=part["text"], logprobs=[])
        yield event("response.content_part.done", **where, part=part)
    yield event("response.output_item.done", output_index=0, item=item)
    yield event("response.completed", response=done)


def message(script: Script, model: str, number: int) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": _text(script), "citations": None}
    if script.answer == "tool":
        tool_input = {"city": "Oslo"}
        block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": tool_input}
        block["caller"] = {"type": "direct"}
    thought = {"type": "thinking", "thinking": "It adds up.", "signature": "c2lnbmVk"}
    thinking = [thought] if script.is_thinking else []
    answer = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "container": None,
        "content": [*thinking, block],
        "stop_reason": "tool_use" if script.answer == "tool" else "end_turn",
        "stop_sequence": None,
        "stop_details": None,
        "usage": anthropic_usage(script, script.tokens_output),
    }
    if script.name == "no_usage":
        del answer["usage"]
    return answer


def message_events(script: Script, model: str, number: int) -> Iterator[bytes]:
    def event(kind: str, **more: Any) -> bytes:
        return b"event: " + kind.encode() + b"\ndata: " + _encode({"type": kind, **more})

    start = {**message(script, model, number), "content": [], "stop_reason": None}
    if script.name != "no_usage":
        start["usage"] = anthropic_usage(script, 1)
    yield event("message_start", message=start)
    if script.answer == "tool":
        block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}
        yield event("content_block_start", index=0, content_block=block)
        delta = {"type": "input_json_delta", "partial_json": _TOOL_ARGUMENTS}
        yield event("content_block_delta", index=0, delta=delta)
    else:
        yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield event("ping")
        for piece in [_JSON_TEXT] if script.answer == "json" else [WORD] * script.tokens_output:
            delta = {"type": "text_delta", "text": piece}
            yield event("content_block_delta", index=0, delta=delta)
    yield event("content_block_stop", index=0)
    stop = "tool_use" if script.answer == "tool" else "end_turn"
    ending: dict[str, Any] = {"delta": {"stop_reason": stop, "stop_sequence": None}}
    if script.name != "no_usage":
        ending["usage"] = {"output_tokens": script.tokens_output}
    yield event("message_delta", **ending)
    yield event("message_stop")


def embeddings(script: Script, model: str, count: int) -> bytes:
    vectors = [
        {"object": "embedding", "index": index, "embedding": [0.5, -0.25]} for index in range(count)
    ]
    answer: dict[str, Any] = {"object": "list", "data": vectors, "model": model}
    if script.name != "no_usage":
        tokens = script.tokens_input
        answer["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _encode(answer)
