"""The published schemas: JSON Schema 2020-12 of every message, and AsyncAPI of the topics.

Made from `fields` (what there is) and `bounds` (how large it may be), so that a schema
says what the door does. Unknown fields are always allowed: they go to `attrs`, redacted.
References between schemas are file names: they resolve in the folder, over HTTP and in
an editor alike. `make docs` writes them to docs/schemas, `GET /v1/schemas` serves them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tallystick.bounds import (
    AMOUNT_DIGITS_MAX,
    AMOUNT_MAX,
    EVENT_NESTING_MAX,
    ID_LENGTH_MAX,
    LATENCY_MS_MAX,
    TOKENS_MAX,
)
from tallystick.events.fields import (
    COMMON,
    FIELDS,
    FLAT_COST,
    FLAT_COST_REQUIRED,
    FLAT_TIME_MS_END,
    PARTICULAR_BY_TYPE,
    REQUIRED,
    RESERVED_PREFIX,
    SCHEMA_VERSION,
    USAGE_QUALITIES,
    USAGE_SCOPES,
    Field,
    Form,
)
from tallystick.events.model import EventType

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
EVENT = "event"
COST_RECORD = "cost_record"
CLOUD_EVENT = "cloud_event"
BROKEN_MESSAGE = "broken_message"

_END = r"$(?!\n)"
"""The end of a pattern: in some engines `$` alone also stands before a last newline."""

_NO_CONTROL = r"[^\u0000-\u001f\u007f-\u009f]*" + _END
_NOT_OURS = f"^(?!{RESERVED_PREFIX})"
_AMOUNT_WHOLE_DIGITS = len(str(AMOUNT_MAX)) - 1
_TIME = (
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(\.[0-9]+)?([Zz]|[+-][0-9]{2}:?[0-9]{2})" + _END
)

NOT_EXPRESSED = {
    "inconsistent_tokens": "the parts of tokens_input, and of tokens_output, may not exceed it",
    "time_in_future": "event_time may not be more than 1 hour ahead of the server's clock",
    "time_expired": "event_time may not be of a time whose facts have expired",
    "bad_time": "event_time must exist (no 30 February) and not be before 1970",
    "nesting_too_deep": f"a field may be nested at most {EVENT_NESTING_MAX} levels deep",
    "bad_amount": f"a cost written out has at most {AMOUNT_DIGITS_MAX} characters",
    "wrong_type": "a whole number is written without a fraction (10, not 10.0 or 1e1)",
    "negative_number": "a cost of minus zero is refused",
    "not_an_object": "the data of a CloudEvent, filled from its envelope, must be an event",
}
"""Rules of the door that JSON Schema cannot say, by the code of the refusal."""

ALSO_ACCEPTED = ("in a flat cost record, an event's name may stand for the record's own",)
"""What the door takes although the schemas say no."""


def _nullable(kind: str, **rules: Any) -> Schema:
    return {"type": [kind, "null"], **rules}


_WHOLE = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
_AMOUNT_TEXT = rf"^0*([0-9]{{1,{_AMOUNT_WHOLE_DIGITS}}}(\.[0-9]+)?|{AMOUNT_MAX}(\.0+)?)" + _END
_FORMS: dict[Form, Schema] = {
    Form.IDENTITY: {
        "type": "string",
        "minLength": 1,
        "maxLength": ID_LENGTH_MAX,
        "pattern": _NOT_OURS + _NO_CONTROL,
    },
    Form.RUN: _nullable("string", maxLength=ID_LENGTH_MAX, pattern=_NOT_OURS + _NO_CONTROL),
    Form.TEXT: _nullable("string", maxLength=ID_LENGTH_MAX, pattern="^" + _NO_CONTROL),
    Form.TIME: {"type": "string", "format": "date-time", "pattern": _TIME},
    Form.COUNT: _nullable("integer", minimum=0, maximum=TOKENS_MAX),
    Form.POSITIVE: {
        "anyOf": [
            {"type": "null"},
            _WHOLE,
            {"type": "string", "pattern": "^0*[1-9][0-9]*" + _END, "maxLength": 9},
        ]
    },
    Form.FLAG: _nullable("boolean"),
    Form.LATENCY: _nullable("number", minimum=0, maximum=LATENCY_MS_MAX),
    Form.AMOUNT: {
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": AMOUNT_MAX},
            {"type": "string", "pattern": _AMOUNT_TEXT, "maxLength": AMOUNT_DIGITS_MAX},
        ]
    },
    Form.CURRENCY: _nullable("string", pattern="^[A-Z]{3}" + _END),
    Form.SCOPE: {"enum": [*USAGE_SCOPES, "", None]},
    Form.QUALITY: {"enum": [*USAGE_QUALITIES, "", None]},
    Form.ATTRIBUTES: _nullable("object"),
}


def property_of(field: Field) -> Schema:
    """The schema of one field's value."""
    return {"description": field.description, **_FORMS[field.form]}


def _properties(fields: Iterable[Field]) -> dict[str, Schema]:
    found = {field.name: property_of(field) for field in fields}
    if "event_type" in found:
        # the server alone makes broken messages
        found["event_type"]["not"] = {"const": EventType.IMPORT_ERROR.value}
    return found


def _schema(title: str, description: str, **rest: Any) -> Schema:
    return {"$schema": DIALECT, "title": title, "description": description, **rest}


def _by_type(event_type: str) -> Schema:
    particular = PARTICULAR_BY_TYPE[event_type]
    properties = _properties([*COMMON, *(FIELDS[name] for name in particular)])
    properties["event_type"] = {"const": event_type}
    required = [*REQUIRED, "cost_amount"] if event_type == EventType.COST else list(REQUIRED)
    return _schema(
        event_type,
        f"An event of type {event_type}, schema version {SCHEMA_VERSION}. "
        "Unknown fields are kept in attrs as far as redaction allows.",
        type="object",
        properties=properties,
        required=required,
        additionalProperties=True,
    )


def _any_event() -> Schema:
    return {
        "type": "object",
        "properties": _properties(FIELDS.values()),
        "required": list(REQUIRED),
        "additionalProperties": True,
        "allOf": [
            {
                "if": {
                    "properties": {"event_type": {"const": event_type}},
                    "required": ["event_type"],
                },
                "then": {"$ref": file_name(event_type)},
            }
            for event_type in map(str, PARTICULAR_BY_TYPE)
        ],
    }


def _event() -> Schema:
    return _schema(
        EVENT,
        "Any message that the door takes: an event, a flat cost record, or either in a CloudEvent.",
        **{"$comment": "Not expressed here: " + "; ".join(NOT_EXPRESSED.values()) + "."},
        type="object",
        **{
            "if": {"required": ["specversion"]},
            "then": {"$ref": file_name(CLOUD_EVENT)},
            "else": {
                "if": {"required": ["key", "tenantId"], "not": {"required": ["event_type"]}},
                "then": {"$ref": file_name(COST_RECORD)},
                "else": _any_event(),
            },
        },
    )


def _cost_record() -> Schema:
    flat = {name: property_of(FIELDS[field]) for name, field in FLAT_COST.items()}
    time = flat["timestamp"]
    description = time.pop("description")
    milliseconds = {"type": "integer", "minimum": 0, "maximum": FLAT_TIME_MS_END - 1}
    flat["timestamp"] = {
        "description": description + " Or milliseconds since 1970.",
        "anyOf": [time, milliseconds],
    }
    others = {name: property_of(field) for name, field in FIELDS.items()}
    return _schema(
        COST_RECORD,
        "A cost as a flat record with names of its own; it has no event_type.",
        type="object",
        properties={**others, **flat, "event_type": False},
        required=list(FLAT_COST_REQUIRED),
        additionalProperties=True,
    )


def _cloud_event() -> Schema:
    return _schema(
        CLOUD_EVENT,
        "CloudEvents 1.0 around an event or a flat cost record. What data leaves out is taken "
        "from the envelope: event_id from id, event_type from type, event_time from time.",
        type="object",
        properties={
            "specversion": {"description": "The version of CloudEvents, 1.0."},
            "id": {"description": "event_id, unless data has one."},
            "type": {"description": "event_type, unless data has one."},
            "time": {"description": "event_time, unless data has one."},
            "source": {"description": "source, unless data has one."},
            "data": {"description": "The event.", "type": "object"},
        },
        required=["specversion", "data"],
        additionalProperties=True,
    )


def _broken_message() -> Schema:
    text = {"type": "string"}
    return _schema(
        BROKEN_MESSAGE,
        "A message that could not become an event, without its content: why, where it came from, "
        "and a redacted draft of it when it could be decoded.",
        type="object",
        properties={
            "broken_id": {**text, "description": "Known by this: a digest of the raw bytes."},
            "tenant_id": {**text, "description": "The tenant it names, or unknown."},
            "received_at": {**text, "format": "date-time", "description": "By our clock."},
            "code": {**text, "description": "Stable, for machines; docs/events.md lists them."},
            "field": {"type": ["string", "null"], "description": "The field that is wrong."},
            "reason": {**text, "description": "For people; never repeats what was sent."},
            "digest": {**text, "description": "BLAKE2b of the raw bytes, 16 bytes in hex."},
            "origin": {
                "description": "Where it was read, when it came from Kafka.",
                "type": ["object", "null"],
                "properties": {
                    "topic": text,
                    "partition": {"type": "integer"},
                    "offset": {"type": "integer"},
                },
            },
            "draft": {
                "description": "What may be kept of it; hmac: stands for a value that may not. "
                "Null when it could not be decoded.",
                "type": ["object", "null"],
            },
        },
        required=["broken_id", "tenant_id", "received_at", "code", "reason", "digest"],
        additionalProperties=True,
    )


def file_name(name: str) -> str:
    """The name under which a schema is written, served and referred to."""
    return f"{name}.schema.json"


def build_schemas() -> dict[str, Schema]:
    """Every published JSON Schema by file name.

    >>> build_schemas()["token_usage.schema.json"]["properties"]["attempt"]["description"]
    'Which try of the run, from 1.'
    """
    schemas = {
        EVENT: _event(),
        COST_RECORD: _cost_record(),
        CLOUD_EVENT: _cloud_event(),
        BROKEN_MESSAGE: _broken_message(),
        **{str(event_type): _by_type(event_type) for event_type in PARTICULAR_BY_TYPE},
    }
    return {file_name(name): schema for name, schema in schemas.items()}
