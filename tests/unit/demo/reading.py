"""Reads demo requests the way a server would, written again and only for tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import zstandard

from tallystick.demo.disturb import DemoRequest

Message = dict[str, Any]
CLOUD_EVENTS = "application/cloudevents-batch+json"
NDJSON = "application/x-ndjson"
NOT_JSON = ", nonsense}"


def plain_body(request: DemoRequest) -> bytes:
    """The body without its content encoding."""
    if request.content_encoding == "gzip":
        return gzip.decompress(request.body)
    if request.content_encoding == "zstd":
        return zstandard.ZstdDecompressor().decompress(request.body)
    return request.body


def read_events(request: DemoRequest) -> Iterator[Message]:
    """The events of a request that are not broken, in the order of sending."""
    for message in _messages(plain_body(request).decode()):
        event = message["data"] if "specversion" in message else message
        if "key" in event or not str(event["event_id"] or "broken-").startswith("broken-"):
            yield event


def _messages(text: str) -> Iterator[Message]:
    """Every JSON object of an array or of lines; what is no JSON is stepped over."""
    decoder = json.JSONDecoder()
    place = text.find("{")
    while place >= 0:
        try:
            message, place = decoder.raw_decode(text, place)
            yield message
        except ValueError:
            place = text.index(NOT_JSON, place) + len(NOT_JSON)
        place = text.find("{", place)


def identity(event: Message) -> tuple[str, str]:
    """(tenant, event id), for the flat cost record too."""
    if "key" in event:
        return event["tenantId"], event["key"]
    return event["tenant_id"], event["event_id"]
