"""What an OpenAI chat request becomes at Gemini and Bedrock, and what their answers become."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tallystick.gateway.model import Asked, UpstreamFailed
from tallystick.gateway.surfaces import SURFACES
from tallystick.gateway.upstreams.aws import FrameSplitter
from tallystick.gateway.upstreams.bedrock import ConverseChat, InvokeMessages
from tallystick.gateway.upstreams.gemini import GeminiChat
from tallystick.gateway.upstreams.translation import Translation, Unsupported
from tests.upstream.dialects import frame, framed

_CHAT = SURFACES[0]
_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
_TOOL = {"type": "function", "function": {"name": "weather", "parameters": _SCHEMA}}
_CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
                "extra_content": {"google": {"thought_signature": "c2ln"}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"degrees":7}'},
]


def asked(**fields: Any) -> Asked:
    return _CHAT.read(msgspec.json.encode({"model": "m", "messages": _CONVERSATION, **fields}))


def body(translation: Translation, model: str = "gemini-2.5-flash", **fields: Any) -> Any:
    return msgspec.json.decode(translation.body(asked(**fields), model, ""))


def test_a_conversation_at_gemini() -> None:
    said = body(
        GeminiChat(),
        tools=[_TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        max_completion_tokens=99,
        temperature=0.5,
        stop="END",
        seed=7,
        reasoning_effort="low",
        user="u-1",
        metadata={"team": "x"},
    )
    assert said == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "What is this?"},
                    {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                ],
            },
            {
                "role": "model",
                "parts": [
                    {
                        "functionCall": {"name": "weather", "args": {"city": "Oslo"}},
                        "thoughtSignature": "c2ln",
                    }
                ],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"name": "weather", "response": {"degrees": 7}}}],
            },
        ],
        "tools": [{"functionDeclarations": [{"name": "weather", "parametersJsonSchema": _SCHEMA}]}],
        "toolConfig": {
            "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}
        },
        "generationConfig": {
            "temperature": 0.5,
            "maxOutputTokens": 99,
            "stopSequences": ["END"],
            "seed": 7,
            "thinkingConfig": {"thinkingBudget": 1024},
        },
    }


def test_a_conversation_at_bedrock() -> None:
    said = body(ConverseChat(), tools=[_TOOL], tool_choice="required", max_tokens=9, top_p=0.5)
    assert said == {
        "system": [{"text": "Be brief."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"text": "What is this?"},
                    {"image": {"format": "png", "source": {"bytes": "aGk="}}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {
                        "toolUse": {
                            "toolUseId": "call_1",
                            "name": "weather",
                            "input": {"city": "Oslo"},
                        }
                    }
                ],
            },
            {
                "role": "user",
                "content": [
                    {"toolResult": {"toolUseId": "call_1", "content": [{"text": '{"degrees":7}'}]}}
                ],
            },
        ],
        "toolConfig": {
            "tools": [{"toolSpec": {"name": "weather", "inputSchema": {"json": _SCHEMA}}}],
            "toolChoice": {"any": {}},
        },
        "inferenceConfig": {"maxTokens": 9, "topP": 0.5},
    }


def test_answers_by_a_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA}}
    gemini = body(GeminiChat(), response_format=form)["generationConfig"]
    assert gemini == {"responseMimeType": "application/json", "responseJsonSchema": _SCHEMA}
    bedrock = body(ConverseChat(), response_format=form)["outputConfig"]["textFormat"]
    assert bedrock["type"] == "json_schema"
    assert msgspec.json.decode(bedrock["structure"]["jsonSchema"]["schema"]) == _SCHEMA


def test_claudes_own_body_passes_as_it_is() -> None:
    messages = next(one for one in SURFACES if one.name == "anthropic_messages")
    given = {"model": "x", "stream": True, "max_tokens": 9, "messages": [], "thinking": {"a": 1}}
    told = messages.read(msgspec.json.encode(given))
    said = msgspec.json.decode(InvokeMessages().body(told, "claude", "beta-1, beta-2"))
    assert said == {
        "max_tokens": 9,
        "messages": [],
        "thinking": {"a": 1},
        "anthropic_version": "bedrock-2023-05-31",
        "anthropic_beta": ["beta-1", "beta-2"],
    }


@pytest.mark.parametrize(
    ("translation", "fields", "field"),
    [
        (GeminiChat(), {"logprobs": True}, "logprobs"),
        (GeminiChat(), {"service_tier": "flex"}, "service_tier"),
        (GeminiChat(), {"modalities": ["text", "audio"]}, "modalities"),
        (GeminiChat(), {"reasoning_effort": "xhigh"}, "reasoning_effort"),
        (ConverseChat(), {"n": 2}, "n"),
        (ConverseChat(), {"response_format": {"type": "json_object"}}, "response_format"),
        (ConverseChat(), {"parallel_tool_calls": False}, "parallel_tool_calls"),
        (
            GeminiChat(),
            {"messages": [{"role": "tool", "tool_call_id": "c9", "content": "x"}]},
            "messages.tool_call_id",
        ),
        (
            ConverseChat(),
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "https://a.example/b"}}
                        ],
                    }
                ]
            },
            "image_url.url",
        ),
    ],
)
def test_what_has_no_other_words_is_refused(
    translation: Translation, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Unsupported) as refused:
        body(translation, **fields)
    assert refused.value.field == field and refused.value.http_status == 400


def test_what_asks_for_nothing_is_no_obstacle() -> None:
    nothing: dict[str, Any] = {"n": 1, "logprobs": False, "logit_bias": None, "store": True}
    nothing["modalities"] = ["text"]
    assert body(GeminiChat(), **nothing) == body(GeminiChat())
    assert body(ConverseChat(), **nothing) == body(ConverseChat())


def test_a_model_is_a_name_and_no_path() -> None:
    assert (
        GeminiChat().path("a/../b?c", is_stream=False) == "/models/a%2F..%2Fb%3Fc:generateContent"
    )
    for model in ("..", "."):
        with pytest.raises(Unsupported):
            ConverseChat().path(model, is_stream=True)
    for model in ("gemini-2.5-flash-image", "gemini-2.5-pro-tts"):
        with pytest.raises(Unsupported):
            GeminiChat().path(model, is_stream=False)


def test_a_blocked_prompt_is_a_refusal() -> None:
    said = {
        "promptFeedback": {"blockReason": "SAFETY"},
        "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9},
        "responseId": "r",
    }
    answer = msgspec.json.decode(GeminiChat().answer(msgspec.json.encode(said), "gemini", 1))
    assert answer["choices"][0]["finish_reason"] == "content_filter"
    assert "SAFETY" in answer["choices"][0]["message"]["refusal"]
    assert answer["usage"]["prompt_tokens"] == 9


def test_a_broken_frame_ends_the_stream() -> None:
    good = frame("converse", b'messageStart\n{"role":"assistant"}')
    assert [one.kind for one in FrameSplitter().feed(good)] == ["messageStart"]
    broken = good[:-6] + b"\x00" + good[-5:]
    with pytest.raises(UpstreamFailed, match="corrupt"):
        list(FrameSplitter().feed(broken))


def test_a_failure_within_a_stream_is_told_as_the_surface_tells_it() -> None:
    failed = framed(b"throttlingException", b'{"message":"too fast"}', b"exception")
    chat = ConverseChat().stream("m", 1).feed(failed)
    assert b'"error"' in chat and b"too fast" in chat and b"throttlingException" in chat
    claude = InvokeMessages().stream("m", 1).feed(failed)
    assert claude.startswith(b"event: error\n") and b"too fast" in claude
