"""What the OpenAPI document says of paths outside the table of routes: the gateway, and OAuth.

The gateway's bodies and answers are the providers' own and pass through, so their schemas name
only what the gateway itself reads; failures have each provider's shape.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_TEXT = {"type": "string"}
_OBJECT = {"type": "object"}
_CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
_CLAUDE = {"model": "claude-sonnet-4-5", "messages": _CHAT["messages"]}

SCHEMAS: dict[str, Any] = {
    "OpenAIError": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "code"],
                "properties": {
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                    "decided_by": _TEXT,
                },
            }
        },
    },
    "AnthropicError": {
        "type": "object",
        "required": ["type", "error"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {
                    "type": _TEXT,
                    "message": _TEXT,
                    "code": _TEXT,
                    "decided_by": _TEXT,
                },
            },
        },
    },
    "OAuthError": {
        "type": "object",
        "required": ["error"],
        "properties": {"error": _TEXT, "error_description": _TEXT},
    },
}


class _Call(NamedTuple):
    """One endpoint of the gateway; `also` are fields that it reads besides the model."""

    path: str
    summary: str
    also: dict[str, Any]
    example: dict[str, Any]
    is_streamed: bool = False


_OPENAI = (
    _Call(
        "/openai/v1/chat/completions",
        "A chat completion, held, priced and charged; whole or streamed",
        {"messages": {"type": "array"}, "max_tokens": {"type": ["integer", "null"]}},
        {**_CHAT, "max_tokens": 50},
        True,
    ),
    _Call(
        "/openai/v1/responses",
        "A response, held, priced and charged; whole or streamed",
        {"input": {}, "max_output_tokens": {"type": ["integer", "null"]}},
        {"model": "gpt-4o", "input": "hi", "max_output_tokens": 50},
        True,
    ),
    _Call(
        "/openai/v1/responses/input_tokens",
        "Count the tokens of a response's input; free, passed on",
        {"input": {}},
        {"model": "gpt-4o", "input": "hi"},
    ),
    _Call(
        "/openai/v1/embeddings",
        "Embeddings, held, priced and charged",
        {"input": {}},
        {"model": "text-embedding-3-small", "input": "hi"},
    ),
)
_ANTHROPIC = (
    _Call(
        "/anthropic/v1/messages",
        "A message, held, priced and charged; whole or streamed",
        {"messages": {"type": "array"}, "max_tokens": {"type": ["integer", "null"]}},
        {**_CLAUDE, "max_tokens": 50},
        True,
    ),
    _Call(
        "/anthropic/v1/messages/count_tokens",
        "Count the tokens of a message; free, passed on",
        {"messages": {"type": "array"}},
        _CLAUDE,
    ),
)
_MEANS = {
    400: "The request cannot be read, or the upstream refused it",
    401: "No key or token that is good",
    402: "Declined: credit or a limit has no room, or the model has no price; nothing was sent",
    403: "Not with this key, or the model is off",
    404: "No upstream answers this model",
    413: "The body is too large",
    429: "Over a rate limit, ours or the upstream's; `Retry-After` says when to come back",
    502: "The upstream could not be reached or broke off",
    503: "Every upstream of the model is out of order, or a store is away",
    504: "The upstream did not answer in time",
}


def other_paths() -> dict[str, dict[str, Any]]:
    """Path items by path."""
    return {
        "/openai/v1/models": {"get": _models()},
        "/openai/v1/models/{model}": {"get": _model()},
        **{one.path: {"post": _call(one, "OpenAIError")} for one in _OPENAI},
        **{one.path: {"post": _call(one, "AnthropicError")} for one in _ANTHROPIC},
        "/oauth/token": {"post": _token()},
        "/.well-known/jwks.json": {
            "get": _published(
                "get_jwks",
                "The public keys of our tokens (RFC 7517)",
                {"keys": {"type": "array"}},
                "application/jwk-set+json",
            )
        },
        "/.well-known/oauth-authorization-server": {
            "get": _published(
                "get_oauth_metadata",
                "Where tokens are given out (RFC 8414)",
                {"issuer": _TEXT, "token_endpoint": _TEXT, "jwks_uri": _TEXT},
            )
        },
    }


def _call(call: _Call, failure: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"model": {"type": "string", "minLength": 1}, **call.also}
    if call.is_streamed:
        fields["stream"] = {"type": ["boolean", "null"]}
    schema = {"type": "object", "required": ["model"], "properties": fields}
    answers: dict[str, Any] = {"application/json": {"schema": _OBJECT}}
    if call.is_streamed:
        answers["text/event-stream"] = {"schema": _TEXT}
    name = call.path.strip("/").replace("/v1/", "_").replace("/", "_")
    return {
        "operationId": f"gateway_{name}",
        "summary": call.summary,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": call.example}},
        },
        "responses": {"200": {"description": "OK", "content": answers}, **_failures(failure)},
    }


def _models() -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["object", "data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": _OBJECT}},
    }
    return {
        "operationId": "gateway_openai_models",
        "summary": "Models that the key may call",
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": schema}}},
            **_failures("OpenAIError"),
        },
    }


def _model() -> dict[str, Any]:
    return {
        "operationId": "gateway_openai_model",
        "summary": "One model that the key may call",
        "parameters": [{"name": "model", "in": "path", "required": True, "schema": _TEXT}],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": _OBJECT}}},
            **_failures("OpenAIError"),
        },
    }


def _failures(schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        str(status): {"description": means, "content": content} for status, means in _MEANS.items()
    }


def _token() -> dict[str, Any]:
    """The token endpoint: who asks shows a client's secret instead of a key (RFC 6749, 4.4)."""
    form = {
        "type": "object",
        "required": ["grant_type"],
        "properties": {
            "grant_type": {"const": "client_credentials"},
            "client_id": _TEXT,
            "client_secret": _TEXT,
            "scope": _TEXT,
        },
    }
    given = {
        "type": "object",
        "required": ["access_token", "token_type", "expires_in", "scope"],
        "properties": {
            "access_token": _TEXT,
            "token_type": {"const": "Bearer"},
            "expires_in": {"type": "integer"},
            "scope": _TEXT,
        },
    }
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}}}
    return {
        "operationId": "post_oauth_token",
        "summary": "A short-lived token for a client's secret",
        "security": [],
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": form}},
        },
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": given}}},
            "400": {"description": "The form cannot be read, or asks too much", "content": refused},
            "401": {"description": "The client or its secret is not good", "content": refused},
            "413": {"description": "The form is too large", "content": refused},
            "503": {"description": "A store is away; try again", "content": refused},
        },
    }


def _published(
    name: str, summary: str, fields: dict[str, Any], media_type: str = "application/json"
) -> dict[str, Any]:
    schema = {"type": "object", "required": sorted(fields), "properties": fields}
    refused = {"application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}}}
    return {
        "operationId": name,
        "summary": summary,
        "security": [],
        "responses": {
            "200": {"description": "OK", "content": {media_type: {"schema": schema}}},
            "503": {"description": "A store is away; try again", "content": refused},
        },
    }
