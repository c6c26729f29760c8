"""The gateway and the SDK read the same answers: each says the same usage, kind by kind,
and the same of how the answer ended.

Every fixture, and every shape that servers are known to send, goes through both entrances:
a surface of the gateway, and the SDK's `Reading` of the same request.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tallystick.gateway.surfaces import SURFACES
from tallystick.sdk.metering.answers import Reading
from tallystick.sdk.metering.bodies import read_request
from tallystick.usage import StreamedAnswer, Usage, used
from tallystick.usage.reading import estimate_output

_FIXTURES = Path(__file__).parents[1] / "fixtures"
_INDEX = json.loads((_FIXTURES / "recorded" / "index.json").read_bytes())
_SHAPES = json.loads((_FIXTURES / "usage" / "shapes.json").read_bytes())
_DOCUMENTED = json.loads((_FIXTURES / "usage" / "answers.json").read_bytes())
_SURFACES = {surface.path.rpartition("/v1/")[2]: surface for surface in SURFACES}
_PATHS = {
    "chat": "chat/completions",
    "openai_chat": "chat/completions",
    "embeddings": "embeddings",
    "responses": "responses",
    "openai_responses": "responses",
    "messages": "messages",
    "anthropic": "messages",
}
_INPUT = 321
"""What both take the request for; how they estimate it is each one's own."""
_BODY = {"model": "m", "messages": [], "input": "x"}


def by_gateway(path: str, answer: bytes, *, is_stream: bool) -> tuple[Usage, str]:
    """As `gateway.calling` and `gateway.streams` read it."""
    surface = _SURFACES[path]
    asked = surface.read(msgspec.json.encode({**_BODY, "stream": is_stream}))
    if is_stream:
        stream = StreamedAnswer(surface.reader(asked))
        stream.feed(answer)
        stream.end()
        seen, usage = stream.reader.seen, stream.usage(_INPUT)
    else:
        seen = surface.read_answer(answer)
        output = 0 if asked.tokens_output_max == 0 else estimate_output(len(answer))
        usage = used(seen, _INPUT, output)
    return msgspec.structs.replace(usage, service_tier=seen.service_tier), seen.error_code


def by_sdk(path: str, answer: bytes, *, is_stream: bool) -> tuple[Usage, str]:
    """As `instrument` reads it."""
    body = msgspec.json.encode({**_BODY, "stream": is_stream})
    request = read_request("POST", f"/v1/{path}", body)
    assert request is not None
    reading = Reading(request._replace(tokens_input=_INPUT))
    if is_stream:
        for start in range(0, len(answer), 97):
            reading.feed(answer[start : start + 97])
        reading.end()
    else:
        reading.take_answer(answer)
    return reading.usage, reading.seen.error_code


def _events(contents: list[Any]) -> bytes:
    texts = [one if isinstance(one, str) else json.dumps(one) for one in contents]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def _cases() -> list[Any]:
    found = []
    for one in _INDEX:
        kind = one["kind"].removesuffix("-stream")
        if kind in _PATHS:
            answer = (_FIXTURES / "recorded" / one["file"]).read_bytes()
            is_stream = kind != one["kind"]
            found.append((one["file"], kind, answer, is_stream, one.get("expected")))
    for one in _DOCUMENTED:
        body = json.dumps(one["answer"]).encode()
        found.append((one["name"], one["reader"], body, False, one["expected"]))
    for one in _SHAPES:
        is_stream = "events" in one
        body = _events(one["events"]) if is_stream else json.dumps(one["answer"]).encode()
        found.append((one["name"], one["kind"], body, is_stream, one["expected"]))
    return [pytest.param(*case[1:], id=case[0]) for case in found]


@pytest.mark.parametrize(("kind", "answer", "is_stream", "expected"), _cases())
def test_both_entrances_read_the_same(
    kind: str, answer: bytes, is_stream: bool, expected: dict[str, Any] | None
) -> None:
    path = _PATHS[kind]
    gateway = by_gateway(path, answer, is_stream=is_stream)
    sdk = by_sdk(path, answer, is_stream=is_stream)
    assert gateway == sdk
    if expected is not None:
        counts = msgspec.to_builtins(gateway[0])
        assert {**counts, **expected} == counts
        assert not {name for name in counts if name not in expected} - {"service_tier"}


_RECORDED = [case for case in _cases() if case.values[2] and str(case.id).endswith(".sse")]


@pytest.mark.parametrize(("kind", "answer", "is_stream", "expected"), _RECORDED)
def test_a_stream_that_breaks_off_is_the_same_at_both(
    kind: str, answer: bytes, is_stream: bool, expected: dict[str, Any] | None
) -> None:
    path = _PATHS[kind]
    for end in range(0, len(answer), max(len(answer) // 20, 1)):
        gateway = by_gateway(path, answer[:end], is_stream=True)
        assert gateway == by_sdk(path, answer[:end], is_stream=True), end
        assert gateway[0].tokens_input > 0
        if end < len(answer) // 2:
            assert gateway[1] == "upstream_cut"
