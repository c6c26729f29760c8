"""OTLP over HTTP on a running server: counted once, answered as the protocol says."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import zstandard
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tallystick.bounds import BODY_BYTES_MAX
from tallystick.clock import SystemClock
from tests.fixtures.otlp.upstream import CALLS, CANARY
from tests.otlp_requests import PROTOBUF, call_of, moved, request_of, span_of
from tests.server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("otlp") / "data").start()
    yield running
    assert running.stop() == 0


def send(
    server: Server, body: bytes, path: str = "traces", media_type: str = PROTOBUF, **headers: str
) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.post(
        f"/v1/{path}", content=body, headers={"content-type": media_type, **names}
    )


def wait_until_counted(server: Server) -> None:
    """Until the sink has everything; charges may still be pending."""
    deadline = time.monotonic() + 60
    while (report := server.get("/v1/freshness"))["difference"] or any(
        one["lag_events"] for one in report["followers"] if one["name"] != "archiver"
    ):
        assert time.monotonic() < deadline, report
        time.sleep(0.05)


def totals(server: Server, tenant: str) -> dict[str, Any]:
    wait_until_counted(server)
    (row,) = server.get("/v1/stats", tenant_id=tenant)["rows"]
    assert isinstance(row, dict)
    return row


def summed(names: list[str]) -> dict[str, int]:
    """What the provider said in all, in the contract's meaning."""
    sums = {"tokens_input": 0, "tokens_output": 0, "tokens_cache_read": 0, "tokens_reasoning": 0}
    for name in names:
        call = CALLS[name]
        cached = sum(call.get(f, 0) for f in ("cache_read", "cache_write_5m", "cache_write_1h"))
        is_apart = name.startswith("message")
        sums["tokens_input"] += call.get("input", 0) + (cached if is_apart else 0)
        sums["tokens_output"] += call.get("output", 0)
        sums["tokens_cache_read"] += call.get("cache_read", 0)
        sums["tokens_reasoning"] += call.get("reasoning", 0)
    return sums


OPENAI = [name for name in CALLS if not name.startswith("message")]
ANTHROPIC = [name for name in CALLS if name.startswith("message")]


@pytest.mark.parametrize(
    ("capture", "calls"),
    [
        ("genai_openai", OPENAI),
        ("openllmetry_openai", OPENAI),
        ("openinference_openai", OPENAI),
        ("double_openai", OPENAI),
        ("anthropic_sdk", ANTHROPIC),
        ("genai_anthropic", ANTHROPIC),
        ("openinference_anthropic", ANTHROPIC),
        ("double_anthropic", ANTHROPIC),
    ],
)
def test_recorded_spans_are_counted_once(server: Server, capture: str, calls: list[str]) -> None:
    body = moved(f"{capture}.traces.pb", SystemClock().now(), capture)
    for _ in range(2):
        answer = send(server, body)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == PROTOBUF
    row = totals(server, capture)
    for name, tokens in summed(calls).items():
        assert row[name] == tokens, name
    assert (row["calls"], row["errors"]) == (len(calls), 1)
    # the failed calls that state no model cannot be priced, and cost nothing
    assert row["cost_coverage"] >= 0.8 and float(row["cost_usd"]) > 0


def test_the_price_is_that_of_the_provider_by_hand(server: Server) -> None:
    """1,200 input of which 1,024 cached, 250 output: gpt-4o at 2.50, 1.25 and 10 USD."""
    attributes = call_of(
        gen_ai__response__model="gpt-4o-2024-08-06",
        gen_ai__usage__input_tokens=1200,
        gen_ai__usage__cache_read__input_tokens=1024,
        gen_ai__usage__output_tokens=250,
    )
    attributes["gen_ai.response.id"] = "chatcmpl-priced-by-hand-0001"
    now = SystemClock().now() * 1000
    span = span_of(attributes, endTimeUnixNano=str(now), startTimeUnixNano=str(now - 10**9))
    body = request_of(span, resource={"tallystick.tenant_id": "by-hand"})
    assert send(server, body, media_type="application/json").json() == {}
    row = totals(server, "by-hand")
    assert row["cost_usd"] == "0.00422"
    assert row["latency_ms_p50"] == pytest.approx(1000, rel=0.03)


def test_spans_logs_and_another_instrumentation_are_one_call(server: Server) -> None:
    now = SystemClock().now()
    for signal in ("traces", "logs"):
        answer = send(server, moved(f"genai_openai.{signal}.pb", now, "mixed"), signal)
        assert answer.status_code == 200
    logs = ExportLogsServiceResponse.FromString(answer.content).partial_success
    assert logs.rejected_log_records == 0 and "4 repeat a call" in logs.error_message
    again = send(server, moved("openllmetry_openai.traces.pb", now, "mixed"))
    spans = ExportTraceServiceResponse.FromString(again.content).partial_success
    assert spans.rejected_spans == 0 and "4 repeat a call" in spans.error_message
    row = totals(server, "mixed")
    embeddings = CALLS["embedding"]["input"]  # it has no id: in its own request it is seen again
    assert row["tokens_input"] == summed(OPENAI)["tokens_input"] + embeddings
    assert row["tokens_output"] == summed(OPENAI)["tokens_output"]


def test_an_agents_run_has_a_story(server: Server) -> None:
    body = moved("agent.traces.pb", SystemClock().now())
    assert send(server, body, x_tallystick_tenant="agents").status_code == 200
    row = totals(server, "agents")
    assert (row["calls"], row["tool_calls"], row["runs"]) == (2, 1, 1)
    assert row["tokens_input"] == 1500, "the agent's own sum is not added"
    (run,) = server.get("/v1/runs", tenant_id="agents")["runs"]
    assert (run["status"], run["agent"]) == ("completed", "weather-agent")
    story = server.get(f"/v1/runs/{run['run_id']}")
    assert CANARY not in json.dumps(story)
    assert len(story["timeline"]) == 6


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_bodies(server: Server, encoding: str) -> None:
    body = moved("openai_v2.traces.pb", SystemClock().now(), f"packed-{encoding}")
    pack = gzip.compress if encoding == "gzip" else zstandard.ZstdCompressor().compress
    assert send(server, pack(body), content_encoding=encoding).status_code == 200
    assert totals(server, f"packed-{encoding}")["calls"] == 5


def test_refused_spans_are_a_partial_success(server: Server) -> None:
    now = str(SystemClock().now() * 1000)
    good = span_of(call_of(), endTimeUnixNano=now)
    bad = span_of(call_of(), spanId="beef")
    body = request_of(good, bad, bad, resource={"tallystick.tenant_id": "partial"})
    answer = send(server, body, media_type="application/json")
    partial = answer.json()["partialSuccess"]
    assert answer.status_code == 200 and partial["rejectedSpans"] == "2"
    assert partial["errorMessage"].startswith("bad_id: ")
    nobody = send(server, moved("openai_v2.traces.pb", SystemClock().now()))
    told = ExportTraceServiceResponse.FromString(nobody.content).partial_success
    assert told.rejected_spans == 5 and "tallystick.tenant_id" in told.error_message
    assert totals(server, "partial")["calls"] == 1


def test_failures_are_answered_in_the_requests_encoding(server: Server) -> None:
    broken = send(server, b"\xff\xff\xff")
    assert (broken.status_code, broken.headers["content-type"]) == (400, PROTOBUF)
    assert broken.content.startswith(b"\x08\x03\x12")
    text = send(server, b"{", "logs", "application/json")
    assert text.status_code == 400 and text.json()["code"] == 3
    assert send(server, b"{}", media_type="text/plain").status_code == 415
    assert send(server, b"x", content_encoding="br").status_code == 415
    assert send(server, b"x", content_encoding="gzip").status_code == 400
    assert send(server, b"\0" * (BODY_BYTES_MAX + 1)).status_code == 413
    bomb = gzip.compress(b"\0" * (BODY_BYTES_MAX + 1))
    assert send(server, bomb, content_encoding="gzip").status_code == 413
    assert send(server, b"", authorization="Bearer no").status_code == 401
    ignored = request_of(span_of({"http.request.method": "GET"}), resource={})
    assert send(server, ignored, media_type="application/json").json() == {}
    metrics = server.client.get("/metrics").text
    assert 'tallystick_otlp_records_total{outcome="ignored",signal="traces"}' in metrics
