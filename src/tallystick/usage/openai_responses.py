"""Usage of OpenAI's Responses API: in the answer, or in a stream's last event.

Source: openai-python 3.54 types/responses/response_completed_event.py,
response_incomplete_event.py, response_failed_event.py, response_error_event.py.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tallystick.usage.model import Seen
from tallystick.usage.openai_usage import ResponsesUsage, usage_of
from tallystick.usage.reading import MARK, UNREADABLE, error_said, tier_said

_LAST = ("response.completed", "response.incomplete", "response.failed")
_BILLED_ITEMS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_interpreter",
    "image_generation_call": "image_generation",
}


class _Item(msgspec.Struct):
    type: str = ""


class _Response(msgspec.Struct):
    id: str | int | None = None
    status: str | None = None
    error: Any = None
    model: str | None = None
    output: list[_Item] | None = None
    service_tier: Any = None
    usage: ResponsesUsage | None = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: Any = None
    code: Any = None
    error: Any = None
    response: msgspec.Raw = msgspec.Raw()
    sequence_number: int = 0


_read_response = msgspec.json.Decoder(_Response, strict=False).decode
"""Not strict: a count of 12.0 or "12" is 12, as some servers write it."""
_read_event = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.Encoder().encode


def read_answer(body: bytes) -> Seen:
    """Read a whole answer; what cannot be read has no usage."""
    seen = Seen()
    try:
        _note(seen, _read_response(body.removeprefix(MARK)))
    except UNREADABLE:
        seen.error_code = "answer_unreadable"
    return seen


def _note(seen: Seen, response: _Response) -> None:
    seen.served_model = response.model or seen.served_model
    seen.answer_id = response.id or seen.answer_id
    seen.service_tier = tier_said(response.service_tier) or seen.service_tier
    if response.usage is not None:
        seen.usage = usage_of(response.usage)
    if response.status == "failed":
        seen.error_code = error_said(response.error)
    tools: dict[str, int] = {}
    for item in response.output or ():
        if name := _BILLED_ITEMS.get(item.type):
            tools[name] = tools.get(name, 0) + 1
    if seen.usage is not None and tools:
        seen.usage = msgspec.structs.replace(seen.usage, tools=tools)


class ResponsesReader:
    """Reads a stream of response events; nothing is hidden, usage is always in it."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.text_bytes = 0
        self.pieces = 0
        self.is_ended = False
        self._response: msgspec.Raw | None = None
        self._sequence = 0

    def read(self, event: bytes, text: bytes) -> bytes:
        """Take one event (and its data); return what the client is sent of it."""
        try:
            read = _read_event(text)
        except UNREADABLE:
            return event
        self._sequence = read.sequence_number
        if isinstance(read.delta, str) and read.delta:
            self.text_bytes += len(read.delta.encode("utf-8", "surrogatepass"))
            self.pieces += 1
        elif read.type == "error":
            self.seen.error_code = error_said(read.error or {"code": read.code})
            self.is_ended = True
        elif bytes(read.response).startswith(b"{"):
            self._response = read.response.copy()
            self._note(read)
        return event

    def _note(self, read: _Event) -> None:
        if read.type in (*_LAST, "response.created"):
            try:
                _note(self.seen, _read_response(read.response))
            except UNREADABLE:
                return
        self.is_ended = self.is_ended or read.type in _LAST

    def ending(self, code: str, message: str, tokens_output: int) -> bytes:
        """`response.incomplete`, for the output limit, with the reason beside it."""
        response: dict[str, Any] = {}
        if self._response is not None:
            response = msgspec.json.decode(self._response)
        response["status"] = "incomplete"
        response["incomplete_details"] = {"reason": "max_output_tokens"}
        self.is_ended = True
        return self._event(
            "response.incomplete", response=response, tallystick={"code": code, "message": message}
        )

    def failure(self, code: str, message: str) -> bytes:
        """An error event; the SDK raises APIError."""
        return self._event("error", code=code, message=message, param=None)

    def _event(self, kind: str, **more: Any) -> bytes:
        self._sequence += 1
        content = {"type": kind, "sequence_number": self._sequence, **more}
        return b"event: " + kind.encode() + b"\ndata: " + _encode(content) + b"\n\n"
