"""From an OTLP request body to single records, so that a bad one harms no other.

A request is cut into its spans (or log records) first and each is decoded alone. Both
encodings end in the same `Record`. Only what is scalar is read: arrays of text keep their
first element, maps and bytes (structured content) are never looked into.

OTLP's JSON differs from protobuf's: trace and span ids are hexadecimal, enums are numbers;
64-bit integers come as text or as numbers. A field that is null is not given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtobufSpan

from tallystick.errors import BodyUnreadable, UnsupportedForm
from tallystick.events.rules import Refused

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
_IDS = re.compile(r"([0-9a-f]{32})?/([0-9a-f]{16})?/([0-9a-f]{16})?", re.ASCII)
_ERROR_CODES = (2, "STATUS_CODE_ERROR")


class Record(NamedTuple):
    """One span or log record, whatever its encoding; times are nanoseconds, ids hexadecimal."""

    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    is_error: bool
    exception_type: str
    attributes: Mapping[str, Any]


class Piece(NamedTuple):
    """One record's place in a request: decoded, or why it could not be; `raw` for hashing."""

    record: Record | None
    refused: Refused | None
    raw: bytes
    resource: Mapping[str, Any]
    library: str


def encoding_of(content_type: str) -> str:
    """Return PROTOBUF or JSON; raise UnsupportedForm for anything else."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in (PROTOBUF, JSON):
        raise UnsupportedForm(f"Content-Type must be {PROTOBUF} or {JSON}")
    return media_type


def split_records(body: bytes, encoding: str, signal: str) -> list[Piece]:
    """Cut a plain body of `signal` (traces or logs); raise BodyUnreadable when it is none."""
    try:
        if encoding == PROTOBUF:
            return list(_from_protobuf(body, signal))
        return list(_from_json(body, signal))
    except DecodeError as error:
        raise BodyUnreadable("the body is not an OTLP request in protobuf") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BodyUnreadable("the body is not an OTLP request in JSON") from error


def _frames() -> type[Message]:
    """The outer messages of both signals (they share their field numbers), inner ones as bytes."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="tallystick/otlp_frames.proto", package="tallystick.otlp", syntax="proto3"
    )
    layers = [("Scope", "bytes"), ("Resource", ".tallystick.otlp.Scope")]
    for name, inner in [*layers, ("Request", ".tallystick.otlp.Resource")]:
        message = file.message_type.add(name=name)
        is_bytes = inner == "bytes"
        if name != "Request":
            message.field.add(
                name="head", number=1, type=field.TYPE_BYTES, label=field.LABEL_OPTIONAL
            )
        message.field.add(
            name="inner",
            number=1 if name == "Request" else 2,
            type=field.TYPE_BYTES if is_bytes else field.TYPE_MESSAGE,
            type_name=None if is_bytes else inner,
            label=field.LABEL_REPEATED,
        )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("tallystick.otlp.Request")
    frames: type[Message] = message_factory.GetMessageClass(descriptor)
    return frames


_Request: Any = _frames()


def _from_protobuf(body: bytes, signal: str) -> Iterator[Piece]:
    decode = _span_of_protobuf if signal == "traces" else _log_of_protobuf
    for resource in _Request.FromString(body).inner:
        about = _protobuf_attributes(Resource.FromString(resource.head).attributes)
        for scope in resource.inner:
            library = InstrumentationScope.FromString(scope.head).name
            for raw in scope.inner:
                yield _piece(decode, raw, raw, about, library)


def _piece(
    decode: Callable[[Any], Record], given: Any, raw: bytes, about: Mapping[str, Any], library: str
) -> Piece:
    try:
        return Piece(decode(given), None, raw, about, library)
    except Refused as refused:
        return Piece(None, refused, raw, about, library)
    except (DecodeError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        unreadable = Refused("bad_record", "the record is not valid OTLP; look at its exporter")
        return Piece(None, unreadable, raw, about, library)


def _span_of_protobuf(raw: bytes) -> Record:
    span = ProtobufSpan.FromString(raw)
    return _record(
        (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _protobuf_attributes(span.attributes),
        is_error=span.status.code == 2,
        exceptions=(
            _protobuf_attributes(event.attributes)
            for event in span.events
            if event.name == "exception"
        ),
    )


def _log_of_protobuf(raw: bytes) -> Record:
    log = LogRecord.FromString(raw)
    moment = log.time_unix_nano or log.observed_time_unix_nano
    ids = (log.trace_id.hex(), log.span_id.hex(), "")
    return _record(ids, 0, moment, _protobuf_attributes(log.attributes))


def _record(
    ids: tuple[str, str, str],
    started_ns: int,
    ended_ns: int,
    attributes: Mapping[str, Any],
    *,
    is_error: bool = False,
    exceptions: Iterable[Mapping[str, Any]] = (),
) -> Record:
    trace_id, span_id, parent_id = ids
    if not _IDS.fullmatch(f"{trace_id}/{span_id}/{parent_id}"):
        raise Refused("bad_id", "trace and span ids must have 16 and 8 bytes")
    exception_type = ""
    if is_error:
        exception_type = str(next(iter(exceptions), {}).get("exception.type", ""))
    return Record(
        trace_id.strip("0") and trace_id,
        span_id.strip("0") and span_id,
        parent_id.strip("0") and parent_id,
        started_ns,
        ended_ns,
        is_error,
        exception_type,
        attributes,
    )


def _protobuf_attributes(attributes: Any) -> dict[str, Any]:
    return {attribute.key: _protobuf_value(attribute.value) for attribute in attributes}


def _protobuf_value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "int_value", "bool_value", "double_value"):
        return getattr(value, kind)
    if kind == "array_value" and value.array_value.values:
        return value.array_value.values[0].string_value or None
    return None


class _JsonArray(msgspec.Struct):
    values: list[dict[str, Any] | None] | None = None


class _JsonValue(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    int_value: int | str | None = None
    bool_value: bool | None = None
    double_value: float | str | None = None
    array_value: _JsonArray | None = None


class _JsonAttribute(msgspec.Struct):
    key: str
    value: _JsonValue | None = None


_JsonAttributes = list[_JsonAttribute] | None


class _JsonStatus(msgspec.Struct):
    code: int | str | None = None


class _JsonEvent(msgspec.Struct):
    name: str | None = None
    attributes: _JsonAttributes = None


class _JsonSpan(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: _JsonAttributes = None
    events: list[_JsonEvent] | None = None
    status: _JsonStatus | None = None


class _JsonLog(msgspec.Struct, rename="camel"):
    trace_id: str | None = None
    span_id: str | None = None
    time_unix_nano: int | str | None = None
    observed_time_unix_nano: int | str | None = None
    attributes: _JsonAttributes = None


class _JsonLibrary(msgspec.Struct):
    name: str | None = None


class _JsonScope(msgspec.Struct, rename="camel"):
    scope: _JsonLibrary | None = None
    spans: list[msgspec.Raw] | None = None
    log_records: list[msgspec.Raw] | None = None


class _JsonAbout(msgspec.Struct):
    attributes: _JsonAttributes = None


class _JsonResource(msgspec.Struct, rename="camel"):
    resource: _JsonAbout | None = None
    scope_spans: list[_JsonScope] | None = None
    scope_logs: list[_JsonScope] | None = None


class _JsonRequest(msgspec.Struct, rename="camel"):
    resource_spans: list[_JsonResource] | None = None
    resource_logs: list[_JsonResource] | None = None


_request_decoder = msgspec.json.Decoder(_JsonRequest)
_span_decoder = msgspec.json.Decoder(_JsonSpan)
_log_decoder = msgspec.json.Decoder(_JsonLog)


def _from_json(body: bytes, signal: str) -> Iterator[Piece]:
    request = _request_decoder.decode(body)
    is_traces = signal == "traces"
    decode = _span_of_json if is_traces else _log_of_json
    for resource in (request.resource_spans if is_traces else request.resource_logs) or []:
        about = _json_attributes(resource.resource.attributes if resource.resource else [])
        for scope in (resource.scope_spans if is_traces else resource.scope_logs) or []:
            library = (scope.scope.name if scope.scope else "") or ""
            for raw in (scope.spans if is_traces else scope.log_records) or []:
                yield _piece(decode, raw, bytes(raw), about, library)


def _span_of_json(raw: msgspec.Raw) -> Record:
    span = _span_decoder.decode(raw)
    return _record(
        (_id(span.trace_id), _id(span.span_id), _id(span.parent_span_id)),
        _integer(span.start_time_unix_nano),
        _integer(span.end_time_unix_nano),
        _json_attributes(span.attributes),
        is_error=span.status is not None and span.status.code in _ERROR_CODES,
        exceptions=(
            _json_attributes(event.attributes)
            for event in span.events or []
            if event.name == "exception"
        ),
    )


def _log_of_json(raw: msgspec.Raw) -> Record:
    log = _log_decoder.decode(raw)
    moment = _integer(log.time_unix_nano) or _integer(log.observed_time_unix_nano)
    ids = (_id(log.trace_id), _id(log.span_id), "")
    return _record(ids, 0, moment, _json_attributes(log.attributes))


def _id(given: str | None) -> str:
    return (given or "").lower()


def _integer(given: int | str | None) -> int:
    try:
        number = int(0 if given is None else given)
    except ValueError:
        raise Refused("wrong_type", "a 64-bit integer must be a number or its digits") from None
    if not -(2**63) <= number < 2**64:
        raise Refused("number_too_large", "an integer is beyond 64 bits")
    return number


def _json_attributes(attributes: _JsonAttributes) -> dict[str, Any]:
    return {attribute.key or "": _json_value(attribute.value) for attribute in attributes or []}


def _json_value(value: _JsonValue | None) -> Any:
    if value is None:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return _integer(value.int_value)
    if value.bool_value is not None:
        return value.bool_value
    if value.double_value is not None:
        return value.double_value
    if value.array_value is not None and value.array_value.values:
        first = (value.array_value.values[0] or {}).get("stringValue")
        return first if isinstance(first, str) else None
    return None
