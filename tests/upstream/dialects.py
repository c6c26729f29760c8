"""What the scripted upstream says as Gemini and as Bedrock.

Shapes follow ai.google.dev/api/generate-content and botocore's model of bedrock-runtime
(Converse, InvokeModel). Stream events are given as SSE text for Gemini, and as
`kind LF payload` for Bedrock, which `frame` turns into AWS's event-stream format
(smithy.io, "Amazon Event Stream Specification").
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from tests.upstream.answers import WORD, message, message_events
from tests.upstream.scripts import Script

AWS_SECRET = "aws-upstream-secret"
_TOOL_INPUT = {"city": "Oslo"}
_JSON_TEXT = '{"city":"Oslo","degrees":7}'
_encode = msgspec.json.Encoder().encode
_PATH = re.compile(
    r"/v1beta/models/([^/]+):(generateContent|streamGenerateContent)"
    r"|/model/([^/]+)/(converse-stream|converse|invoke-with-response-stream|invoke)"
)


class Said(NamedTuple):
    """What a path says."""

    surface: str
    model: str
    is_stream: bool


def read_path(path: str) -> Said | None:
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    if match[1]:
        return Said("gemini", match[1], match[2].startswith("stream"))
    return Said(match[4].partition("-")[0], match[3], "stream" in match[4])


def gemini_usage(script: Script, output: int) -> dict[str, Any]:
    """Thoughts are counted beside candidates; cached tokens within the prompt."""
    candidates = max(output - script.tokens_reasoning, 0)
    usage = {
        "promptTokenCount": script.tokens_input,
        "candidatesTokenCount": candidates,
        "totalTokenCount": script.tokens_input + candidates + script.tokens_reasoning,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": script.tokens_input}],
    }
    if script.tokens_reasoning:
        usage["thoughtsTokenCount"] = script.tokens_reasoning
    if script.tokens_cached:
        usage["cachedContentTokenCount"] = script.tokens_cached
    return usage


def _gemini_part(script: Script) -> dict[str, Any]:
    if script.answer == "tool":
        call = {"name": "get_weather", "args": _TOOL_INPUT}
        return {"functionCall": call, "thoughtSignature": "c2lnbmVk"}
    return {"text": _JSON_TEXT if script.answer == "json" else WORD * script.tokens_output}


def gemini(script: Script, model: str, number: int) -> bytes:
    content = {"role": "model", "parts": [_gemini_part(script)]}
    answer: dict[str, Any] = {
        "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
        "modelVersion": model,
        "responseId": f"gem{number}",
    }
    if script.name != "no_usage":
        answer["usageMetadata"] = gemini_usage(script, script.tokens_output)
    return _encode(answer)


def gemini_events(script: Script, model: str, number: int) -> Iterator[bytes]:
    def event(part: dict[str, Any], output: int, finish: str = "") -> bytes:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [part]}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        answer: dict[str, Any] = {
            "candidates": [candidate],
            "modelVersion": model,
            "responseId": f"gem{number}",
        }
        if script.name != "no_usage":
            answer["usageMetadata"] = gemini_usage(script, output)
        return b"data: " + _encode(answer)

    if script.answer == "text":
        for count in range(script.tokens_output):
            yield event({"text": WORD}, count + 1 + script.tokens_reasoning)
        yield event({"text": ""}, script.tokens_output, "STOP")
    else:
        yield event(_gemini_part(script), script.tokens_output, "STOP")


def converse_usage(script: Script) -> dict[str, Any]:
    """Input without what was read from or written to the cache."""
    return {
        "inputTokens": script.tokens_input - script.tokens_cached - script.tokens_written,
        "outputTokens": script.tokens_output,
        "totalTokens": script.tokens_input + script.tokens_output,
        "cacheReadInputTokens": script.tokens_cached,
        "cacheWriteInputTokens": script.tokens_written,
    }


def converse(script: Script) -> bytes:
    block: dict[str, Any] = {"text": WORD * script.tokens_output}
    if script.answer == "tool":
        block = {"toolUse": {"toolUseId": "t1", "name": "get_weather", "input": _TOOL_INPUT}}
    answer = {
        "output": {"message": {"role": "assistant", "content": [block]}},
        "stopReason": "tool_use" if script.answer == "tool" else "end_turn",
        "usage": converse_usage(script),
        "metrics": {"latencyMs": 7},
    }
    if script.name == "no_usage":
        del answer["usage"]
    return _encode(answer)


def converse_events(script: Script) -> Iterator[bytes]:
    def event(kind: str, **content: Any) -> bytes:
        return kind.encode() + b"\n" + _encode({**content, "p": "abcd"})  # padded, as it is

    yield event("messageStart", role="assistant")
    if script.answer == "tool":
        tool = {"toolUse": {"toolUseId": "t1", "name": "get_weather"}}
        yield event("contentBlockStart", contentBlockIndex=0, start=tool)
        delta: dict[str, Any] = {"toolUse": {"input": '{"city":"Oslo"}'}}
        yield event("contentBlockDelta", contentBlockIndex=0, delta=delta)
    else:
        for _ in range(script.tokens_output):
            yield event("contentBlockDelta", contentBlockIndex=0, delta={"text": WORD})
    yield event("contentBlockStop", contentBlockIndex=0)
    yield event("messageStop", stopReason="tool_use" if script.answer == "tool" else "end_turn")
    if script.name != "no_usage":
        yield event("metadata", usage=converse_usage(script), metrics={"latencyMs": 7})


def invoke(script: Script, model: str, number: int) -> bytes:
    return _encode(message(script, model, number))


def invoke_events(script: Script, model: str, number: int) -> Iterator[bytes]:
    for event in message_events(script, model, number):
        yield b"chunk\n" + event.partition(b"data: ")[2]


def frame(surface: str, event: bytes) -> bytes:
    """An event as Bedrock sends it."""
    kind, _, payload = event.partition(b"\n")
    if surface == "invoke":
        payload = _encode({"bytes": base64.b64encode(payload).decode(), "p": "abcd"})
    return framed(kind, payload, b"event")


def framed(kind: bytes, payload: bytes, message_type: bytes) -> bytes:
    """A message of an event stream: an event or an exception."""
    headers = b"".join(
        bytes([len(name)]) + name + b"\x07" + struct.pack(">H", len(value)) + value
        for name, value in (
            (b":" + message_type + b"-type", kind),
            (b":content-type", b"application/json"),
            (b":message-type", message_type),
        )
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    text = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return text + struct.pack(">I", zlib.crc32(text))


def is_signed(path: str, headers: Mapping[bytes, bytes], body: bytes) -> bool:
    """Check a SigV4 signature by its specification, from what came over the wire."""
    said = headers.get(b"authorization", b"").decode()
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/(\d+)/([^/]+)/bedrock/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        said,
    )
    if match is None:
        return False
    day, region, names, signature = match.groups()
    signed = [f"{name}:{headers[name.encode()].decode().strip()}\n" for name in names.split(";")]
    whole = hashlib.sha256(body).hexdigest()
    canonical = "\n".join(("POST", quote(path, safe="/~"), "", "".join(signed), names, whole))
    scope = f"{day}/{region}/bedrock/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{headers[b'x-amz-date'].decode()}\n{scope}\n{hashed}"
    key = b"AWS4" + AWS_SECRET.encode()
    for part in (day, region, "bedrock", "aws4_request", text):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex(), signature)
