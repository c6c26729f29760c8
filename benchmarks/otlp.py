"""How fast one process turns OTLP requests into events: spans a second, by encoding.

Run: `python -m benchmarks.otlp`. The recorded spans of two instrumentations are repeated
with fresh ids to batches of 512, the SDK's default; parsing, redaction and digest included.
"""

from __future__ import annotations

import json
import statistics
import time

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.otlp_requests import PROTOBUF, recorded

from tallystick.clock import SystemClock
from tallystick.events.otlp import OtlpParser
from tallystick.events.redaction import Redactor

SPANS = 512
ROUNDS = 7


def batch(name: str) -> ExportTraceServiceRequest:
    """A request of SPANS spans made of a recorded one."""
    source = ExportTraceServiceRequest.FromString(recorded(name))
    whole = ExportTraceServiceRequest()
    resource = whole.resource_spans.add()
    resource.resource.CopyFrom(source.resource_spans[0].resource)
    scope = resource.scope_spans.add()
    scope.scope.CopyFrom(source.resource_spans[0].scope_spans[0].scope)
    spans = source.resource_spans[0].scope_spans[0].spans
    now = SystemClock().now() * 1000
    for number in range(SPANS):
        span = scope.spans.add()
        span.CopyFrom(spans[number % len(spans)])
        span.trace_id = number.to_bytes(16, "big")[::-1]
        span.start_time_unix_nano, span.end_time_unix_nano = now - 10**9, now
        for attribute in span.attributes:
            if attribute.key == "gen_ai.response.id":
                attribute.value.string_value = f"chatcmpl-{number:029d}"
    return whole


def as_json(request: ExportTraceServiceRequest) -> bytes:
    """OTLP's JSON form of a request."""
    content = MessageToDict(request, use_integers_for_enums=True)
    spans = request.resource_spans[0].scope_spans[0].spans
    given = content["resourceSpans"][0]["scopeSpans"][0]["spans"]
    for written, span in zip(given, spans, strict=True):
        written["traceId"], written["spanId"] = span.trace_id.hex(), span.span_id.hex()
    return json.dumps(content).encode()


def measure(body: bytes, media_type: str) -> float:
    """Median spans a second of ROUNDS rounds."""
    redactor = Redactor(b"k" * 32)
    rates = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(4):
            parsed = OtlpParser("traces")(
                body,
                content_type=media_type,
                content_encoding="",
                headers={"x-tallystick-tenant": "acme"},
                received_at=SystemClock().now(),
                redactor=redactor,
            )
            assert len(parsed.events) == SPANS, parsed.rejections[:1]
        rates.append(4 * SPANS / (time.perf_counter() - started))
    return statistics.median(rates)


def main() -> None:
    """Print one line for each recording and encoding."""
    for name in ("genai_openai", "openllmetry_openai", "openinference_openai", "anthropic_sdk"):
        request = batch(f"{name}.traces.pb")
        for body, media_type in (
            (request.SerializeToString(), PROTOBUF),
            (as_json(request), "application/json"),
        ):
            rate = measure(body, media_type)
            print(f"{name:22} {media_type:24} {len(body) // SPANS:6} B/span {rate:9,.0f} spans/s")


if __name__ == "__main__":
    main()
