"""From one span or log record to messages in the contract's names. Pure.

A call span becomes `token_usage`, a tool span `tool_call_finished`, an agent, workflow or
step span with usage `token_usage` of scope `aggregate` (never billed); an agent or workflow
span that is the run also gives the run's start and end. What is not understood is left
out, so content has no way in; what is taken still passes redaction in `make_event`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from tallystick.bounds import ID_LENGTH_MAX, LATENCY_MS_MAX
from tallystick.clock import format_time
from tallystick.events import otlp_names as names
from tallystick.events.otlp_doubles import Seen
from tallystick.events.otlp_framing import Piece, Record
from tallystick.events.otlp_usage import Usage, read_usage
from tallystick.events.rules import Refused

UNIQUE_LENGTH_MIN = 20
"""A provider's id this long is unique by itself; some local servers count to 999."""

_PROVIDER_ID = re.compile(r"[A-Za-z0-9_.:=/+-]{1,100}", re.ASCII)
_REASON = re.compile(r"[a-z_]{1,32}", re.ASCII)
_YEAR_9999_NS = 253_402_300_799 * 10**9


class Understood(NamedTuple):
    """A record with what was read of it; `kind` is "" when it says nothing of usage."""

    kind: str
    record: Record
    usage: Usage | None
    identity: str
    tenant_id: Any


def understand(piece: Piece, signal: str, tenant_of_header: str) -> Understood:
    """Read what a record is; raise Refused when its counts cannot be read."""
    record = piece.record
    assert record is not None
    attributes = record.attributes
    kind = kind_of(attributes) if signal == "traces" else _kind_of_log(attributes)
    usage = None
    identity = ""
    if kind in ("call", "agent", "step"):
        mark = first((names.CACHE_MARK,), attributes, piece.resource)
        usage = read_usage(attributes, mark)
    if kind == "call":
        identity = _identity(first(names.RESPONSE_ID, attributes), record.trace_id, "")
    elif kind == "tool":
        identity = _identity(first(names.TOOL_CALL_ID, attributes), record.trace_id, "tool:")
    tenant_id = first(names.TENANT, attributes, piece.resource)
    return Understood(
        kind, record, usage, identity, tenant_of_header if tenant_id is None else tenant_id
    )


def seen(understood: Understood, library: str) -> Seen:
    """What the rule against double counting needs."""
    record, usage = understood.record, understood.usage
    return Seen(
        understood.kind,
        record.trace_id,
        record.span_id,
        record.parent_id,
        library,
        understood.identity and f"{understood.tenant_id}\0{understood.identity}",
        usage.stated if usage else 0,
    )


def kind_of(attributes: Mapping[str, Any]) -> str:
    """Tell what a span is: call, tool, agent (or workflow), step or "" (not ours).

    >>> kind_of({"gen_ai.operation.name": "chat"}), kind_of({"http.method": "GET"})
    ('call', '')
    """
    operation = attributes.get(names.OPERATION)
    if operation in names.KIND_OF_OPERATION:
        return names.KIND_OF_OPERATION[operation]
    for name, table in (
        (names.OPENINFERENCE_KIND, names.KIND_OF_OPENINFERENCE),
        (names.TRACELOOP_KIND, names.KIND_OF_TRACELOOP),
    ):
        value = attributes.get(name)
        if isinstance(value, str):
            # another kind (retriever, guardrail) with usage repeats the calls inside it
            return table.get(value) or ("step" if _states_usage(attributes) else "")
    if attributes.get(names.REQUEST_TYPE) in names.OPERATION_OF_REQUEST_TYPE:
        return "call"
    return "call" if _states_usage(attributes) and first(names.MODEL, attributes) else ""


def _kind_of_log(attributes: Mapping[str, Any]) -> str:
    return "call" if kind_of(attributes) == "call" and _states_usage(attributes) else ""


def _states_usage(attributes: Mapping[str, Any]) -> bool:
    return first(names.INPUT, attributes) is not None


def first(rows: tuple[str, ...], *places: Mapping[str, Any]) -> Any:
    """The first value that is given: by place, then by name."""
    for attributes in places:
        for name in rows:
            value = attributes.get(name)
            if value is not None and value != "":
                return value
    return None


def _identity(given: Any, trace_id: str, prefix: str) -> str:
    if not isinstance(given, str) or not given:
        return ""
    if not _PROVIDER_ID.fullmatch(given):
        given = blake2b(given.encode("utf-8", "replace"), digest_size=16).hexdigest()
    if prefix or len(given) < UNIQUE_LENGTH_MIN:
        given = f"{trace_id}:{given}"
    return f"{prefix}{given}"[: ID_LENGTH_MAX - len("otlp:")]


def messages_of(
    piece: Piece, understood: Understood, *, is_speaker: bool
) -> Iterator[dict[str, Any]]:
    """Make the messages of a record; a span that repeats another's call is not billed.

    A repeated tool span gives none. Raises Refused when a span has no ids.
    """
    if understood.kind == "call":
        yield _call_message(piece, understood, is_speaker=is_speaker)
    elif understood.kind == "tool" and is_speaker:
        yield _tool_message(piece, understood)
    elif understood.kind in ("agent", "step"):
        assert understood.usage is not None
        if understood.usage.stated:
            yield _call_message(piece, understood, is_speaker=False)
        if understood.kind == "agent" and _is_run(piece, understood.record):
            yield from _run_messages(piece, understood)


def _call_message(piece: Piece, understood: Understood, *, is_speaker: bool) -> dict[str, Any]:
    record, usage = understood.record, understood.usage
    assert usage is not None
    attributes = record.attributes
    claims_identity = is_speaker and understood.identity and usage.stated > 0
    exact = usage.is_exact or record.is_error
    return {
        **_common(piece, understood, "token_usage"),
        "event_id": "otlp:" + (understood.identity if claims_identity else _span_key(piece)),
        "request_id": _provider_id(first(names.RESPONSE_ID, attributes)),
        "provider": provider_of(first(names.PROVIDER, attributes)),
        "model": _text(first(names.MODEL, attributes)),
        "operation": _operation(attributes) if understood.kind == "call" else "",
        "service_tier": _text(
            first(names.SERVICE_TIER, attributes) or first(names.REQUESTED_SERVICE_TIER, attributes)
        ),
        "usage_scope": "leaf" if is_speaker else "aggregate",
        "usage_quality": "exact" if exact else "estimated",
        "tokens_input": usage.tokens_input,
        "tokens_output": usage.tokens_output,
        "tokens_cache_read": usage.tokens_cache_read,
        "tokens_cache_write_5m": usage.tokens_cache_write_5m,
        "tokens_cache_write_1h": usage.tokens_cache_write_1h,
        "tokens_reasoning": usage.tokens_reasoning,
        "latency_ms": _latency_ms(record),
        "error_code": _error_code(record),
    }


def _tool_message(piece: Piece, understood: Understood) -> dict[str, Any]:
    record = understood.record
    return {
        **_common(piece, understood, "tool_call_finished"),
        "event_id": "otlp:" + (understood.identity or _span_key(piece)),
        "tool": _text(
            first(names.TOOL, record.attributes) or record.attributes.get("traceloop.entity.name")
        ),
        "tool_call_id": _provider_id(first(names.TOOL_CALL_ID, record.attributes)),
        "latency_ms": _latency_ms(record),
        "error_code": _error_code(record),
    }


def _is_run(piece: Piece, record: Record) -> bool:
    """A root agent span is the run when the run is its trace, or when it says so itself."""
    if record.attributes.get(names.RUN_MARK) is True:
        return True
    has_own_run = first(names.RUN, record.attributes, piece.resource) is not None
    return not record.parent_id and not has_own_run


def _run_messages(piece: Piece, understood: Understood) -> Iterator[dict[str, Any]]:
    record = understood.record
    key = _span_key(piece)
    started = {**_common(piece, understood, "run_started"), "event_id": f"otlp:{key}:start"}
    if record.started_ns:
        yield {**started, "event_time": _time(record.started_ns)}
    error_code = _error_code(record)
    yield {
        **_common(piece, understood, "run_failed" if error_code else "run_completed"),
        "event_id": f"otlp:{key}:end",
        "error_code": error_code,
        "latency_ms": _latency_ms(record),
    }


def _common(piece: Piece, understood: Understood, event_type: str) -> dict[str, Any]:
    record = understood.record
    attributes = record.attributes
    message: dict[str, Any] = _attribution(piece.resource) | _attribution(attributes)
    run_id = first(names.RUN, attributes, piece.resource)
    message |= {
        "event_type": event_type,
        "event_time": _time(record.ended_ns),
        "tenant_id": understood.tenant_id,
        "run_id": record.trace_id if run_id is None else run_id,
        "attempt": first((names.ATTEMPT,), attributes, piece.resource),
        "attrs": _attrs(piece, record),
    }
    if not understood.tenant_id:
        raise Refused(
            "missing_field",
            "tenant_id is missing: set the resource attribute tallystick.tenant_id, "
            "or the header X-Tallystick-Tenant",
        )
    return message


def _attribution(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Who and what for, as far as a span or resource says."""
    is_named_by_entity = attributes.get(names.TRACELOOP_KIND) == "agent"
    if names.ATTRIBUTION_NAMES.isdisjoint(attributes) and not is_named_by_entity:
        return {}
    found = {field: _text(first(rows, attributes)) for field, rows in names.ATTRIBUTION.items()}
    if is_named_by_entity and not found["agent"]:
        found["agent"] = _text(attributes.get("traceloop.entity.name"))
    return {field: text for field, text in found.items() if text}


def _attrs(piece: Piece, record: Record) -> dict[str, Any]:
    """What else is worth keeping; `make_event` redacts it."""
    reason = first(names.FINISH_REASON, record.attributes)
    given = {
        "library": piece.library,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "finish_reason": reason if _REASON.fullmatch(str(reason)) else None,
        "stream": first(names.STREAM, record.attributes),
        "session_id": first(names.SESSION, record.attributes),
    }
    return {name: value for name, value in given.items() if value not in (None, "")}


def _span_key(piece: Piece) -> str:
    record = piece.record
    assert record is not None
    if record.trace_id and record.span_id:
        return f"{record.trace_id}:{record.span_id}"
    return "record:" + blake2b(piece.raw, digest_size=16).hexdigest()


def _time(nanoseconds: int) -> str:
    if not 0 < nanoseconds <= _YEAR_9999_NS:
        raise Refused("bad_time", "the span has no end time, or one beyond the year 9999")
    return format_time(nanoseconds // 1000)


def _latency_ms(record: Record) -> float | None:
    elapsed = (record.ended_ns - record.started_ns) / 1e6
    return elapsed if record.started_ns and 0 <= elapsed <= LATENCY_MS_MAX else None


def _error_code(record: Record) -> str:
    given = record.attributes.get("error.type")
    if given:
        return _text(given)
    return _text(record.exception_type or "error") if record.is_error else ""


def provider_of(given: Any) -> str:
    """Name a provider as the rate cards do.

    >>> provider_of("gcp.vertex_ai"), provider_of("OpenAI")
    ('google', 'openai')
    """
    name = _text(given).lower()
    return names.PROVIDERS.get(name, name)


def _operation(attributes: Mapping[str, Any]) -> str:
    given = attributes.get(names.OPERATION)
    if given:
        return _text(given)
    if attributes.get(names.OPENINFERENCE_KIND) == "EMBEDDING":
        return "embeddings"
    return names.OPERATION_OF_REQUEST_TYPE.get(str(attributes.get(names.REQUEST_TYPE)), "chat")


def _provider_id(given: Any) -> str:
    return given if isinstance(given, str) and _PROVIDER_ID.fullmatch(given) else ""


def _text(given: Any) -> str:
    """A name, cut to what a dimension may hold: a long one must not cost the whole call."""
    if not isinstance(given, str):
        return "" if given is None or isinstance(given, bool) else str(given)[:ID_LENGTH_MAX]
    cut = given[:ID_LENGTH_MAX]
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)
