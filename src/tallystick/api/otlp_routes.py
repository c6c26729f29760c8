"""Routes of OTLP/HTTP: `POST /v1/traces` and `POST /v1/logs`, answered as OTLP says.

The answer has the request's encoding. Records that were refused are counted in
`partialSuccess` with the first reason; the request itself is a success then, so that no
exporter sends it again. A failure is a `google.rpc.Status`; 503 is worth another try.
"""

from __future__ import annotations

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import Request
from starlette.responses import Response

from tallystick.api.problems import from_error
from tallystick.api.requests import principal_of, read_body, respond, tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services
from tallystick.errors import TallystickError, UnsupportedForm
from tallystick.events.door import Receipt
from tallystick.events.otlp import TENANT_HEADER, OtlpParser
from tallystick.events.otlp_framing import JSON, PROTOBUF, encoding_of

_INVALID_ARGUMENT = 3
_UNAVAILABLE = 14


async def post_traces(services: Services, request: Request) -> Response:
    """Take spans; answers once their events are durable."""
    return await _post(services, request, "traces")


async def post_logs(services: Services, request: Request) -> Response:
    """Take log records; answers once their events are durable."""
    return await _post(services, request, "logs")


async def _post(services: Services, request: Request, signal: str) -> Response:
    try:
        encoding = encoding_of(request.headers.get("content-type", ""))
    except UnsupportedForm as error:
        return from_error(error)
    parser = OtlpParser(signal)
    tenant_id = principal_of(request).tenant_id
    try:
        tenant_of(request, request.headers.get(TENANT_HEADER, ""))
        receipt = await services.door.accept(
            await read_body(request),
            content_type=encoding,
            content_encoding=request.headers.get("content-encoding", ""),
            headers=request.headers,
            parse_form=parser,
            tenant_id=tenant_id,
        )
    except TallystickError as error:
        return _failure(error, encoding)
    services.metrics.count_receipt(receipt)
    services.metrics.otlp_records.labels(signal, "ignored").inc(parser.ignored)
    services.metrics.otlp_records.labels(signal, "repeated").inc(parser.repeated)
    return _success(receipt, signal, encoding)


def _success(receipt: Receipt, signal: str, encoding: str) -> Response:
    rejected, reason = summary_of(receipt)
    if encoding == JSON:
        name = "rejectedSpans" if signal == "traces" else "rejectedLogRecords"
        # 64-bit integers are text in OTLP's JSON
        partial = {name: str(rejected), "errorMessage": reason}
        return respond({"partialSuccess": partial} if reason else {})
    if signal == "traces":
        traces = ExportTraceServiceResponse()
        if reason:
            traces.partial_success.rejected_spans = rejected
            traces.partial_success.error_message = reason
        return Response(traces.SerializeToString(), media_type=PROTOBUF)
    logs = ExportLogsServiceResponse()
    if reason:
        logs.partial_success.rejected_log_records = rejected
        logs.partial_success.error_message = reason
    return Response(logs.SerializeToString(), media_type=PROTOBUF)


def summary_of(receipt: Receipt) -> tuple[int, str]:
    """Return how many records were refused, and why, in one line.

    A conflict is no refusal here: another span of the same call was counted before.
    """
    refused = [each for each in receipt.rejected if each.code != "event_id_conflict"]
    repeats = len(receipt.rejected) - len(refused)
    lines = []
    if refused:
        lines.append(f"{refused[0].code}: {refused[0].reason}")
    if repeats:
        lines.append(f"{repeats} repeat a call that is counted already")
    return len({each.index for each in refused}), "; ".join(lines)


def _failure(error: TallystickError, encoding: str) -> Response:
    """A google.rpc.Status with the status and headers that the problem would have."""
    response = from_error(error)
    code = _UNAVAILABLE if error.retryable else _INVALID_ARGUMENT
    headers = {"Retry-After": response.headers["Retry-After"]} if error.retryable else {}
    if encoding == JSON:
        body = msgspec.json.encode({"code": code, "message": error.message})
    else:
        body = encode_status(code, error.message)
    return Response(body, error.http_status, headers, encoding)


def encode_status(code: int, message: str) -> bytes:
    """Write google.rpc.Status in protobuf: field 1 the code, field 2 the message.

    >>> encode_status(3, "no")
    b'\\x08\\x03\\x12\\x02no'
    """
    text = message.encode()
    length, rest = bytearray(), len(text)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((0x08, code, 0x12, *length, rest)) + text


_OTLP = ("application/json", "application/x-protobuf")

ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "POST",
        "/v1/traces",
        post_traces,
        "Take OpenTelemetry GenAI spans (OTLP/HTTP, protobuf or JSON)",
        {},
        body_example={"resourceSpans": []},
        needs="usage:write",
        body_types=_OTLP,
        other_types=("application/json", "application/x-protobuf"),
    ),
    RouteEntry(
        "POST",
        "/v1/logs",
        post_logs,
        "Take OpenTelemetry GenAI log events (OTLP/HTTP, protobuf or JSON)",
        {},
        body_example={"resourceLogs": []},
        needs="usage:write",
        body_types=_OTLP,
        other_types=("application/json", "application/x-protobuf"),
    ),
)
"""Entries of the table of routes."""
