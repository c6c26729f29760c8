"""The gateway's words: what was asked, and how a call failed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tallystick.errors import TallystickError


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a surface reads of a request; everything else passes through untouched."""

    model: str
    fields: dict[str, msgspec.Raw]
    """The body's top level; each value keeps its own bytes."""
    tokens_input: int
    """An upper estimate."""
    tokens_output_max: int | None
    """That of all answers together."""
    answers: int = 1
    is_stream: bool = False
    wants_usage: bool = True
    """Whether the client itself asked for usage in its stream."""
    has_cache_write: bool = False
    has_audio: bool = False
    """Sound goes in or may come out."""
    service_tier: str = ""
    tools: Mapping[str, int] = {}
    """Tools that the provider runs and bills by call -> calls at most."""
    metadata: Mapping[str, str] = {}


class ModelUnknown(TallystickError):
    """No upstream is set for this model."""

    code = "model_not_found"
    http_status = 404


class ModelOff(TallystickError):
    """This model is switched off."""

    code = "model_off"
    http_status = 403


class UpstreamFailed(TallystickError):
    """The upstream could not be reached, or gave no answer that can be passed on."""

    code = "upstream_failed"
    http_status = 502
    retryable = True

    def __init__(self, message: str, *, code: str, status: int = 502, is_sent: bool) -> None:
        super().__init__(message, code=code)
        self.http_status = status
        self.is_sent = is_sent
        """Whether the upstream may have worked on it, and may bill it."""


class UpstreamBusy(TallystickError):
    """Every target is at its limit of calls under way, or out of order for now."""

    code = "upstream_busy"
    http_status = 503
    retryable = True
    retry_after_seconds = 1
