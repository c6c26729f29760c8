"""The AsyncAPI 3.0 document of the Kafka topics: what to write, what is written back.

The messages' forms are the JSON Schemas of `schemas`, referred to by file name, so that the
document is read from docs/schemas or from `GET /v1/schemas/asyncapi.yaml` alike.
"""

from __future__ import annotations

from typing import Any

from tallystick.events.fields import SCHEMA_VERSION
from tallystick.events.schemas import BROKEN_MESSAGE, EVENT, file_name

TOPIC = "ml-agents"
BROKEN_TOPIC = "ml-agents-broken-msg"
_FORMAT = "application/schema+json;version=draft-2020-12"
_EXAMPLE = {
    "event_id": "evt-1",
    "event_type": "token_usage",
    "event_time": "2026-11-20T09:30:00Z",
    "tenant_id": "acme",
    "run_id": "run-42",
    "provider": "openai",
    "model": "gpt-4o",
    "tokens_input": 1200,
    "tokens_output": 250,
}
_COST_EXAMPLE = {
    "key": "cost-1",
    "timestamp": 1_763_631_000_000,
    "tenantId": "acme",
    "userId": "u-7",
    "projectId": "p-3",
    "modelId": "gpt-4o",
    "operation": "chat",
    "currency": "USD",
    "amount": 0.0055,
    "tokensIn": 1200,
    "tokensOut": 250,
    "version": 1,
}
_BROKEN_EXAMPLE = {
    "broken_id": "broken:5f1d7a84db00d2fce00b31a7fc73224f",
    "tenant_id": "acme",
    "received_at": "2026-11-20T09:30:01.000000Z",
    "code": "wrong_type",
    "field": "tokens_input",
    "reason": "tokens_input must be a whole number",
    "digest": "5f1d7a84db00d2fce00b31a7fc73224f",
    "origin": {"topic": TOPIC, "partition": 3, "offset": 1204},
    "draft": {**_EXAMPLE, "tokens_input": "hmac:0f3c9a7be1d24c55"},
}


def build_asyncapi(schema_folder: str = "") -> dict[str, Any]:
    """Return the document; `schema_folder` stands before the schemas' file names."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tallystick topics",
            "version": f"{SCHEMA_VERSION}.0.0",
            "description": "Usage events of AI agents in, broken messages back.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": _channel(
                TOPIC,
                "Events, from producers in any language. A key keeps a run in one partition.",
                {"event": "Event"},
            ),
            "brokenMessages": _channel(
                BROKEN_TOPIC,
                "Messages of the other topic that could not become events, without their content.",
                {"brokenMessage": "BrokenMessage"},
            ),
        },
        "operations": {
            "takeEvents": _operation("receive", "events", "event"),
            "reportBrokenMessages": _operation("send", "brokenMessages", "brokenMessage"),
        },
        "components": {
            "messages": {
                "Event": _message(
                    "One event, flat cost record or CloudEvent (structured).",
                    schema_folder + file_name(EVENT),
                    {"event": _EXAMPLE, "costRecord": _COST_EXAMPLE},
                ),
                "BrokenMessage": _message(
                    "Why a message was refused, and a redacted draft of it.",
                    schema_folder + file_name(BROKEN_MESSAGE),
                    {"wrongType": _BROKEN_EXAMPLE},
                ),
            }
        },
    }


def _channel(topic: str, description: str, messages: dict[str, str]) -> dict[str, Any]:
    return {
        "address": topic,
        "description": description,
        "messages": {
            name: {"$ref": f"#/components/messages/{component}"}
            for name, component in messages.items()
        },
    }


def _operation(action: str, channel: str, message: str) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
    }


def _message(summary: str, schema: str, examples: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "contentType": "application/json",
        "payload": {"schemaFormat": _FORMAT, "schema": {"$ref": schema}},
        "bindings": {
            "kafka": {
                "key": {
                    "type": "string",
                    "description": "The run's id (run_id), or else the event's id.",
                },
                "bindingVersion": "0.5.0",
            }
        },
        "examples": [{"name": name, "payload": payload} for name, payload in examples.items()],
    }
