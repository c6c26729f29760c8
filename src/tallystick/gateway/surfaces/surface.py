"""What every surface can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from tallystick.errors import InvalidInput
from tallystick.gateway.model import Asked
from tallystick.gateway.settings import Upstream
from tallystick.usage import Seen, StreamReader

_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class Surface(Protocol):
    """One endpoint of a provider's API."""

    path: str
    """Where apps find it at the gateway."""
    name: str
    speaks: str
    """openai or anthropic: which upstreams can answer, and the shape of errors."""
    upstream_path: str

    def read(self, body: bytes) -> Asked:
        """Read a request; raises InvalidInput."""
        ...

    def body_for(self, asked: Asked, model: str, upstream: Upstream) -> bytes:
        """The body to pass on: with the target's model, all other values byte for byte."""
        ...

    def read_answer(self, body: bytes) -> Seen:
        """Read a whole answer."""
        ...

    def reader(self, asked: Asked) -> StreamReader:
        """A reader for one streamed answer."""
        ...


def read_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The top level of a JSON body; raises InvalidInput.

    A name that is given twice counts once, here and for the upstream: it is written anew.
    """
    try:
        return _read_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("the body must be a JSON object", code="bad_body") from error


def field_of(fields: Mapping[str, msgspec.Raw], name: str, kind: Any, default: Any) -> Any:
    """One field of a request, typed; null counts as not given; raises InvalidInput."""
    raw = fields.get(name)
    if raw is None:
        return default
    try:
        value = msgspec.json.decode(raw, type=kind | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"{name} has a wrong type", code="bad_body", field=name) from error
    return default if value is None else value


def maximum_of(fields: Mapping[str, msgspec.Raw], name: str, *, least: int = 1) -> int | None:
    """The most output that a field allows; null counts as not given; raises InvalidInput.

    Upstreams differ in what they make of a maximum below 1: some take it for none at all.
    """
    found: int | None = field_of(fields, name, int, None)
    if found is not None and found < least:
        raise InvalidInput(f"{name} must be at least {least}", code="bad_body", field=name)
    return found


def model_of(fields: Mapping[str, msgspec.Raw]) -> str:
    """The model that is asked for; raises InvalidInput."""
    model: str = field_of(fields, "model", str, "")
    if not 0 < len(model) <= 128:
        raise InvalidInput("model must be a name", code="bad_body", field="model")
    return model


def encode_fields(
    fields: Mapping[str, msgspec.Raw], model: str, changes: Mapping[str, Any] | None = None
) -> bytes:
    """A body of these fields with another model, and further changes."""
    return _encode({**fields, "model": model, **(changes or {})})


def text_fields(fields: Mapping[str, msgspec.Raw], name: str) -> dict[str, str]:
    """A field that is an object, as far as its values are texts."""
    raw = fields.get(name)
    if raw is None:
        return {}
    try:
        content = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)}
