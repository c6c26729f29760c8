"""A key of a tenant sends events of its own tenant only, in every form of a body."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tallystick.clock import SystemClock
from tallystick.events.adapters import ParsedBody, parse_body
from tallystick.events.otlp import OtlpParser
from tallystick.events.redaction import Redactor
from tests.otlp_requests import call_of, request_of, span_of
from tests.server import event

_REDACTOR = Redactor(b"k" * 32)


def _parse(body: Any, *, content_type: str = "application/json", own: str = "acme") -> ParsedBody:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_body(
        raw,
        content_type=content_type,
        content_encoding="",
        headers={},
        received_at=SystemClock().now(),
        redactor=_REDACTOR,
        tenant_id=own,
    )


def _without_tenant(**changes: Any) -> dict[str, Any]:
    made = event(**changes)
    del made["tenant_id"]
    return made


_FLAT = {"key": "k1", "timestamp": 1_790_000_000_000, "amount": "0.1", "currency": "USD"}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ([_without_tenant()], "application/json"),
        (_without_tenant(), "application/json"),
        (json.dumps(_without_tenant()).encode(), "application/x-ndjson"),
        ([_FLAT], "application/json"),
        (
            {"specversion": "1.0", "id": "e", "type": "token_usage", "data": _without_tenant()},
            "application/cloudevents+json",
        ),
    ],
)
def test_an_event_without_tenant_is_the_keys(body: Any, content_type: str) -> None:
    parsed = _parse(body, content_type=content_type)
    assert [one.tenant_id for one in parsed.events] == ["acme"]


def test_an_event_of_another_tenant_is_refused_by_itself() -> None:
    parsed = _parse([event(event_id="e1"), event(event_id="e2", tenant_id="globex")])
    assert [one.event_id for one in parsed.events] == ["e1"]
    assert [(one.index, one.code) for one in parsed.rejections] == [(1, "tenant_mismatch")]
    # it is set before the eyes of who sent it, not of who it names
    assert [one.tenant_id for one in parsed.broken] == ["acme"]


def test_a_broken_event_that_names_another_tenant_is_kept_with_the_sender() -> None:
    parsed = _parse([event(tenant_id="globex", tokens_input=-1)])
    assert [one.tenant_id for one in parsed.broken] == ["acme"]


def test_without_a_tenant_every_tenant_may_be_named() -> None:
    parsed = _parse([event(event_id="e1"), event(event_id="e2", tenant_id="globex")], own="")
    assert [one.tenant_id for one in parsed.events] == ["acme", "globex"]


def _parse_spans(tenant_said: str | None, own: str) -> ParsedBody:
    resource = {} if tenant_said is None else {"tallystick.tenant_id": tenant_said}
    return OtlpParser("traces")(
        request_of(span_of(call_of()), resource=resource),
        content_type="application/json",
        content_encoding="",
        headers={},
        received_at=1_790_000_003_000_000,
        redactor=_REDACTOR,
        tenant_id=own,
    )


@pytest.mark.parametrize("said", [None, "acme"])
def test_spans_of_the_own_tenant_are_taken(said: str | None) -> None:
    parsed = _parse_spans(said, "acme")
    assert {one.tenant_id for one in parsed.events} == {"acme"} and not parsed.rejections


def test_spans_of_another_tenant_are_refused() -> None:
    parsed = _parse_spans("globex", "acme")
    assert not parsed.events
    assert [one.code for one in parsed.rejections] == ["tenant_mismatch"]
    assert [one.tenant_id for one in parsed.broken] == ["acme"]
