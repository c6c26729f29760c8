"""The fields of the wire, declared once: what a producer may send, and in which form.

The readers of `rules`, the published JSON Schemas and the drafts of broken messages are all
made from this list, so they cannot say different things. A field is only ever added: its
name, form and meaning stay (docs/schemas/README.md has the rules, a test compares with what
was released).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from tallystick.events.model import EventType
from tallystick.usage.model import TOKEN_COUNTS

SCHEMA_VERSION = 1
"""The newest `schema_version` whose fields this server knows; newer ones are kept in attrs."""

RESERVED_PREFIX = "tallystick:"
"""Ids of our own making begin so; nobody else's may."""


class Form(StrEnum):
    """How a value is written; `rules` has one reader for each, `schemas` one JSON Schema."""

    IDENTITY = "identity"
    RUN = "run"
    TEXT = "text"
    TIME = "time"
    COUNT = "count"
    POSITIVE = "positive"
    FLAG = "flag"
    LATENCY = "latency"
    AMOUNT = "amount"
    CURRENCY = "currency"
    SCOPE = "scope"
    QUALITY = "quality"
    ATTRIBUTES = "attributes"


class Field(NamedTuple):
    """One field: its name on the wire, its form, what it means (with its unit)."""

    name: str
    form: Form
    description: str
    target: str = ""
    """The canonical field, when this is only another name of it."""


COMMON = (
    Field("event_id", Form.IDENTITY, "Known by this, once per tenant: sent twice, counted once."),
    Field("event_type", Form.IDENTITY, "What happened; a type not listed here is kept as unknown."),
    Field("event_time", Form.TIME, "When it happened, by the producer's clock: RFC 3339, offset."),
    Field("tenant_id", Form.IDENTITY, "Whose usage this is."),
    Field("run_id", Form.RUN, "The run it belongs to; also the Kafka key."),
    Field("attempt", Form.POSITIVE, "Which try of the run, from 1."),
    Field("source", Form.TEXT, "The system that says so, such as gateway or orchestrator."),
    Field("schema_version", Form.POSITIVE, "The version that the producer writes; default 1."),
    Field("workflow", Form.TEXT, "The workflow that ran."),
    Field("agent", Form.TEXT, "The agent that acted."),
    Field("user_id", Form.TEXT, "The end user; send an opaque id."),
    Field("project_id", Form.TEXT, "The project."),
    Field("team", Form.TEXT, "The team that owns the cost."),
    Field("product", Form.TEXT, "The product."),
    Field("feature", Form.TEXT, "The feature."),
    Field("customer_tier", Form.TEXT, "The customer's tier, such as free or enterprise."),
    Field("environment", Form.TEXT, "Such as production or staging."),
    Field("parent_run_id", Form.TEXT, "The run that started this one."),
    Field("root_run_id", Form.TEXT, "The run at the top of the tree."),
    Field("attrs", Form.ATTRIBUTES, "Anything else; kept only as the redaction rules allow."),
)
"""Fields of every event."""

_PARTICULAR = (
    Field("request_id", Form.TEXT, "The provider's or gateway's id of the call."),
    Field("provider", Form.TEXT, "Who served the model, such as openai."),
    Field("model", Form.TEXT, "The model's name as the provider writes it."),
    Field("operation", Form.TEXT, "What was asked of the model, such as chat or embeddings."),
    Field("service_tier", Form.TEXT, "The provider's tier, such as flex or priority."),
    Field("is_batch", Form.FLAG, "True when it went through a batch interface."),
    Field(
        "usage_scope", Form.SCOPE, "leaf is one call; aggregate sums its children: never priced."
    ),
    Field("usage_quality", Form.QUALITY, "exact by the provider, or estimated by the sender."),
    Field("tokens_input", Form.COUNT, "Tokens read, cached ones included."),
    Field("tokens_output", Form.COUNT, "Tokens written, reasoning included."),
    Field("tokens_cache_read", Form.COUNT, "Tokens read from a cache; part of tokens_input."),
    Field("tokens_cache_write_5m", Form.COUNT, "Tokens cached for 5 minutes; of tokens_input."),
    Field("tokens_cache_write_1h", Form.COUNT, "Tokens cached for 1 hour; of tokens_input."),
    Field("tokens_reasoning", Form.COUNT, "Tokens of reasoning; part of tokens_output."),
    Field("prompt_tokens", Form.COUNT, "Another name of tokens_input.", "tokens_input"),
    Field("completion_tokens", Form.COUNT, "Another name of tokens_output.", "tokens_output"),
    Field("latency_ms", Form.LATENCY, "How long it took, in milliseconds."),
    Field("tool", Form.TEXT, "The tool's name."),
    Field("tool_call_id", Form.TEXT, "Ties the start of a tool call to its end."),
    Field("error_code", Form.TEXT, "A short code when it failed; not the error's text."),
    Field("idempotency_key", Form.TEXT, "The key under which the producer retried it."),
    Field("cost_amount", Form.AMOUNT, "A stated cost in cost_currency, exact decimal."),
    Field("cost_currency", Form.CURRENCY, "ISO 4217 code, such as USD."),
)

FIELDS = {field.name: field for field in (*COMMON, *_PARTICULAR)}
"""Every known field by its name on the wire."""

_CALL = (
    "request_id",
    "provider",
    "model",
    "operation",
    "service_tier",
    "is_batch",
    "usage_scope",
    "usage_quality",
    *TOKEN_COUNTS,
    "prompt_tokens",
    "completion_tokens",
    "latency_ms",
    "error_code",
)
_TOOL = ("tool_call_id", "tool", "idempotency_key")
_MUTATION = ("request_id", "idempotency_key")

PARTICULAR_BY_TYPE: dict[str, tuple[str, ...]] = {
    EventType.RUN_STARTED: (),
    EventType.RUN_COMPLETED: (),
    EventType.RUN_FAILED: ("error_code",),
    EventType.ATTEMPT_STARTED: (),
    EventType.ATTEMPT_FINISHED: ("error_code",),
    EventType.TOKEN_USAGE: _CALL,
    EventType.TOOL_CALL_STARTED: _TOOL,
    EventType.TOOL_CALL_FINISHED: (*_TOOL, "latency_ms", "error_code"),
    EventType.CREDIT_GRANTED: _MUTATION,
    EventType.CREDIT_RESERVED: _MUTATION,
    EventType.CREDIT_CHARGED: _MUTATION,
    EventType.CREDIT_REFUNDED: _MUTATION,
    EventType.COST: ("cost_amount", "cost_currency", *_CALL),
}
"""What each type uses besides COMMON; any known field is read by its form in every type."""

REQUIRED = ("event_id", "event_type", "event_time", "tenant_id")

FLAT_COST = {
    "key": "event_id",
    "timestamp": "event_time",
    "tenantId": "tenant_id",
    "userId": "user_id",
    "projectId": "project_id",
    "modelId": "model",
    "operation": "operation",
    "currency": "cost_currency",
    "amount": "cost_amount",
    "tokensIn": "tokens_input",
    "tokensOut": "tokens_output",
    "version": "schema_version",
}
"""The flat cost record's names, and what they are called here."""

FLAT_COST_REQUIRED = ("key", "timestamp", "tenantId", "amount")
FLAT_TIME_MS_END = 10**14
"""A timestamp of a flat cost record may be a whole number of milliseconds below this."""

USAGE_SCOPES = ("leaf", "aggregate")
USAGE_QUALITIES = ("exact", "estimated")
