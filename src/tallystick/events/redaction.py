"""Redaction: content never survives the door (allow-list, fail closed).

What a sender adds beyond the known fields may be anything, a prompt included. Booleans and
small numbers are kept. A text is kept only when its key is on the allow-list and it looks
like a machine's token; everything else is replaced by a keyed hash, equal for equal values
within a tenant, so that it can be compared and counted but never read.

Identifiers of the contract (`user_id`, `team`, ...) are attribution and stay as sent: send
opaque ids, or set `hash_user_ids`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from tallystick.bounds import ATTRIBUTES_MAX

ALLOWED_ATTRIBUTES = frozenset(
    [
        "api_version",
        "api_type",
        "cache_hit",
        "cloud",
        "cluster",
        "cost_centre",
        "cost_center",
        "currency",
        "deployment",
        "finish_reason",
        "framework",
        "gen_ai.operation.name",
        "gen_ai.system",
        "host_type",
        "http.method",
        "http.status_code",
        "instance_type",
        "language",
        "library",
        "library_version",
        "locale",
        "mode",
        "outcome",
        "plan",
        "priority",
        "provider_request_id",
        "quality",
        "region",
        "release",
        "retry_reason",
        "route",
        "runtime",
        "schema",
        "sdk",
        "sdk_version",
        "served_model",
        "service",
        "service_name",
        "severity",
        "span_id",
        "span_kind",
        "stage",
        "status",
        "stop_reason",
        "stream",
        "tallystick_key",
        "tallystick_org",
        "tool_type",
        "trace_id",
        "version",
        "zone",
    ]
)
"""Attribute keys whose values may be kept as text."""

CONTENT_KEYS = frozenset(
    [
        "arguments",
        "args",
        "body",
        "completion",
        "completions",
        "content",
        "contents",
        "document",
        "documents",
        "input",
        "inputs",
        "instruction",
        "instructions",
        "message",
        "messages",
        "output",
        "outputs",
        "payload",
        "prompt",
        "prompts",
        "query",
        "question",
        "response",
        "result",
        "results",
        "system",
        "text",
        "texts",
        "thought",
        "tool_calls",
        "transcript",
    ]
)
"""Keys that carry content by their name: always hashed, whatever their type."""

_MACHINE_TOKEN = re.compile(r"[A-Za-z0-9_.:/+-]{1,64}", re.ASCII)
_MACHINE_NAME = re.compile(r"(?:[A-Za-z0-9_.:/+#=&?%~-]|@(?=[0-9])){1,128}", re.ASCII)
_ERROR_TOKEN = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_PLAIN_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
_HIDDEN = re.compile(r"hmac:[0-9a-f]{16}", re.ASCII)
_NUMBER_MAX = 10**9  # longer numbers may be cards, phones or dates of birth
_NUMBER_LENGTH_MAX = 24  # what a double takes; a fraction has as many digits as somebody writes
_encoder = msgspec.json.Encoder(order="deterministic", decimal_format="number")


def canonical_json(content: object) -> str:
    """Write JSON in which names stand in order, so that equal content is equal text."""
    return _encoder.encode(content).decode()


def is_hidden(value: object) -> bool:
    """Tell whether a value is the hash that stands for one which may not be kept."""
    return isinstance(value, str) and _HIDDEN.fullmatch(value) is not None


class Redactor:
    """Replaces what may be content by keyed hashes; the key never leaves the server."""

    def __init__(
        self,
        key: bytes,
        *,
        allowed_attributes: frozenset[str] = ALLOWED_ATTRIBUTES,
        hash_user_ids: bool = False,
    ) -> None:
        self._key = key
        self._allowed = allowed_attributes
        self.hash_user_ids = hash_user_ids
        self._tenant_keys: dict[str, bytes] = {}

    def attributes(self, given: Mapping[str, Any], tenant_id: str) -> str:
        """Return canonical JSON of what may be kept of `given`; "" when nothing is given."""
        kept = self.kept(given, tenant_id)
        return canonical_json(kept) if kept else ""

    def kept(self, given: Mapping[str, Any], tenant_id: str) -> dict[str, Any]:
        """Return what may be kept of `given`, at most ATTRIBUTES_MAX names."""
        kept: dict[str, Any] = {}
        for key, value in given.items():
            if len(kept) >= ATTRIBUTES_MAX:
                break
            name = key if _PLAIN_KEY.fullmatch(key) else self.hashed(key, tenant_id)
            kept[name] = self._value(key, value, tenant_id)
        return kept

    def machine_name(self, text: str, tenant_id: str) -> str:
        """Keep what a machine would call something; hash what looks like written text."""
        return text if _MACHINE_NAME.fullmatch(text) else self.hashed(text, tenant_id)

    def error_code(self, text: str, tenant_id: str) -> str:
        """Keep an error code; hash what looks like an error text."""
        return text if _ERROR_TOKEN.fullmatch(text) else self.hashed(text, tenant_id)

    def hashed(self, value: Any, tenant_id: str) -> str:
        """Return "hmac:" and 16 hex digits, the same for equal values of one tenant."""
        content = value.encode() if isinstance(value, str) else _encoder.encode(value)
        key = self._tenant_keys.get(tenant_id)
        if key is None:
            key = hmac.digest(self._key, tenant_id.encode(), "sha256")
            if len(self._tenant_keys) < 10_000:
                self._tenant_keys[tenant_id] = key
        return "hmac:" + hmac.new(key, content, hashlib.sha256).hexdigest()[:16]

    def _value(self, key: str, value: Any, tenant_id: str) -> Any:
        if value is None:
            return None
        if key.rpartition(".")[2].lower() in CONTENT_KEYS:
            return self.hashed(value, tenant_id)
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float | Decimal):
            small = -_NUMBER_MAX < value < _NUMBER_MAX  # also of an int that no float can take
            return (
                value
                if small and len(str(value)) <= _NUMBER_LENGTH_MAX
                else self.hashed(value, tenant_id)
            )
        if isinstance(value, str) and key in self._allowed and _MACHINE_TOKEN.fullmatch(value):
            return value
        return self.hashed(value, tenant_id)
