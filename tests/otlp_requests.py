"""OTLP requests for tests: recorded ones, moved to another time, and ones made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

FOLDER = Path(__file__).parent / "fixtures" / "otlp"
PROTOBUF = "application/x-protobuf"


def recorded(name: str) -> bytes:
    """The raw body of a recorded request, such as "genai_openai.traces.pb"."""
    return (FOLDER / name).read_bytes()


def moved(name: str, now: int, tenant_id: str = "") -> bytes:
    """A recorded protobuf request whose records end at `now` (micros), for a tenant."""
    if ".traces." in name:
        traces = ExportTraceServiceRequest.FromString(recorded(name))
        for resource in traces.resource_spans:
            _set_tenant(resource.resource, tenant_id)
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                elapsed = span.end_time_unix_nano - span.start_time_unix_nano
                span.end_time_unix_nano = now * 1000
                span.start_time_unix_nano = now * 1000 - elapsed
        return bytes(traces.SerializeToString())
    logs = ExportLogsServiceRequest.FromString(recorded(name))
    for about in logs.resource_logs:
        _set_tenant(about.resource, tenant_id)
        for record in (record for scope in about.scope_logs for record in scope.log_records):
            record.observed_time_unix_nano = now * 1000
    return bytes(logs.SerializeToString())


def _set_tenant(resource: Any, tenant_id: str) -> None:
    if tenant_id:
        attribute = resource.attributes.add(key="tallystick.tenant_id")
        attribute.value.string_value = tenant_id


def value_of(value: Any) -> dict[str, Any]:
    """An AnyValue of OTLP's JSON."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [value_of(child) for child in value]}}
    if isinstance(value, dict):
        pairs = [{"key": key, "value": value_of(child)} for key, child in value.items()]
        return {"kvlistValue": {"values": pairs}}
    return {"stringValue": value}


def attributes_of(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Attributes of OTLP's JSON."""
    return [{"key": key, "value": value_of(value)} for key, value in given.items()]


def span_of(attributes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A span of OTLP's JSON that lasted two seconds."""
    return {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "name": "chat",
        "startTimeUnixNano": "1790000000000000000",
        "endTimeUnixNano": "1790000002000000000",
        "attributes": attributes_of(attributes),
        **changes,
    }


def call_of(**changes: Any) -> dict[str, Any]:
    """The attributes of a call in the current conventions; keys take "." for "__"."""
    given = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.response.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    return {key: value for key, value in given.items() if value is not None}


def request_of(
    *spans: dict[str, Any], resource: dict[str, Any] | None = None, library: str = "made.by.hand"
) -> bytes:
    """A traces request of OTLP's JSON."""
    about = {"tallystick.tenant_id": "acme"} if resource is None else resource
    scope = {"scope": {"name": library}, "spans": list(spans)}
    one = {"resource": {"attributes": attributes_of(about)}, "scopeSpans": [scope]}
    return json.dumps({"resourceSpans": [one]}).encode()


def together(*requests: bytes) -> bytes:
    """Several JSON requests in one."""
    resources = [one for body in requests for one in json.loads(body)["resourceSpans"]]
    return json.dumps({"resourceSpans": resources}).encode()
