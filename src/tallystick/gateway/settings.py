"""What an operator sets: upstreams with their keys, routes, and what is switched off.

One TOML file (TALLYSTICK_GATEWAY_CONFIG). Without one, OPENAI_API_KEY and ANTHROPIC_API_KEY
of the server's environment are enough: each makes the provider's own upstream. A key is
written as `env:NAME` or `file:PATH`, so that the file itself need not be a secret. Callers
name models only; no header, body or path of theirs reaches an upstream's address.
"""

from __future__ import annotations

import importlib.util
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from tallystick.errors import InvalidInput

Kind = Literal["openai", "anthropic", "azure_openai", "openai_compatible", "gemini", "bedrock"]
_BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
    "bedrock": "https://bedrock-runtime.{region}.amazonaws.com",
}
_PROVIDERS = {
    "azure_openai": "azure",
    "openai_compatible": "openai",
    "gemini": "google",
    "bedrock": "aws",
}
_REGION = re.compile(r"[a-z]{2}(-[a-z0-9]+)+")


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One server that answers model calls."""

    kind: Kind
    name: str = ""
    base_url: str = ""
    api_key: str = ""
    """env:NAME, file:PATH, or the key itself; empty sends none."""
    provider: str = ""
    """Whose prices apply; by default that of its kind."""
    models: tuple[str, ...] = ("*",)
    """What is sent here when no route names the model; * stands for any text."""
    api_version: str = ""
    """Azure only: set, the deployment is part of the path."""
    region: str = ""
    """Bedrock only: where it is called, and what signatures are for."""
    connections_max: int = 512
    concurrency_max: int = 0
    """Calls under way at most; 0 does not limit."""
    connect_seconds: float = 5.0
    first_byte_seconds: float = 600.0
    """How long an answer may take to begin, and a stream may be silent."""
    has_stream_usage: bool = True
    """Whether stream_options.include_usage is understood."""
    is_off: bool = False

    @property
    def speaks(self) -> str:
        """The family of its protocol: openai or anthropic."""
        return "anthropic" if self.kind == "anthropic" else "openai"

    @property
    def is_translated(self) -> bool:
        """Whether it has a dialect of its own, into which requests are translated."""
        return self.kind in ("gemini", "bedrock")

    def answers(self, speaks: str) -> bool:
        """Whether it can answer on surfaces of this protocol."""
        return self.speaks == speaks or self.kind == "bedrock"


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model at an upstream."""

    upstream: str
    model: str = ""
    """Empty: the model that was asked for."""
    weight: int = 1


class ModelRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where calls of one model name (an alias) go."""

    targets: tuple[Target, ...]
    """One of these by weight, then the others."""
    fallbacks: tuple[Target, ...] = ()
    """In this order when none of the targets answers."""
    downgrades: tuple[Target, ...] = ()
    """In this order, each cheaper, when a limit declines what was asked for."""
    retries: int = 1
    """Further attempts in all."""
    is_off: bool = False


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that is set of the gateway."""

    upstreams: dict[str, Upstream] = {}
    routes: dict[str, ModelRoute] = {}
    models_off: tuple[str, ...] = ()
    """Kill switch: names of models that nobody may call; * stands for any text."""
    retries: int = 1
    """Further attempts of a model without a route, after a failure of the upstream."""
    retry_share: float = 0.2
    """Retries per first attempt over time: a failing upstream is not hit harder."""
    drain_seconds: float = 20.0
    """How long a stream is read on after its client went away."""
    client_seconds: float = 30.0
    """How long a client may leave a stream unread; then it counts as gone."""
    drain_bytes: int = 4 * 1024 * 1024
    hold_seconds: int = 900
    """How long a call's hold lives; longer than any call may take."""


def load_gateway_settings(path: str, environment: Mapping[str, str]) -> GatewaySettings:
    """Read the file, or make the upstreams of the environment; raises InvalidInput."""
    if not path:
        return _of_environment(environment)
    try:
        content = tomllib.loads(Path(path).expanduser().read_text("utf-8"))
        settings = msgspec.convert(content, GatewaySettings)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInput(f"gateway settings {path}: {error}", code="bad_setting") from error
    return check_settings(settings, environment)


def check_settings(settings: GatewaySettings, environment: Mapping[str, str]) -> GatewaySettings:
    """Fill in names, addresses and keys; raise InvalidInput for what cannot work."""
    upstreams = {
        name: _complete(name, upstream, environment)
        for name, upstream in settings.upstreams.items()
    }
    for name, route in settings.routes.items():
        for target in (*route.targets, *route.fallbacks, *route.downgrades):
            if target.upstream not in upstreams:
                raise _wrong(f"route {name} names the upstream {target.upstream}: there is none")
            if target.weight < 0:
                raise _wrong(f"route {name}: a weight is not negative")
        if not route.targets:
            raise _wrong(f"route {name} has no targets")
    return msgspec.structs.replace(settings, upstreams=upstreams)


def _of_environment(environment: Mapping[str, str]) -> GatewaySettings:
    upstreams: dict[str, Upstream] = {}
    kinds: tuple[tuple[Kind, str, tuple[str, ...]], ...] = (
        ("gemini", "GEMINI", ("gemini-*", "gemma-*")),
        ("openai", "OPENAI", ("*",)),
        ("anthropic", "ANTHROPIC", ("*",)),
    )
    for kind, prefix, models in kinds:
        if environment.get(f"{prefix}_API_KEY"):
            upstreams[kind] = Upstream(
                kind,
                base_url=environment.get(f"{prefix}_BASE_URL", ""),
                api_key=f"env:{prefix}_API_KEY",
                models=models,
            )
    return check_settings(GatewaySettings(upstreams=upstreams), environment)


def _complete(name: str, upstream: Upstream, environment: Mapping[str, str]) -> Upstream:
    if upstream.kind == "bedrock":
        _check_bedrock(name, upstream)
    base_url = (upstream.base_url or _BASE_URLS.get(upstream.kind, "")).rstrip("/")
    base_url = base_url.replace("{region}", upstream.region)
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise _wrong(f"upstream {name}: base_url must be http(s)://host/path")
    return msgspec.structs.replace(
        upstream,
        name=name,
        base_url=base_url,
        api_key=_read_key(name, upstream.api_key, environment),
        provider=upstream.provider or _PROVIDERS.get(upstream.kind, upstream.kind),
    )


def _check_bedrock(name: str, upstream: Upstream) -> None:
    if not _REGION.fullmatch(upstream.region):
        raise _wrong(f"upstream {name}: bedrock needs a region, such as eu-central-1")
    if importlib.util.find_spec("botocore") is None:
        raise _wrong(f"upstream {name}: bedrock needs botocore; install tallystick[bedrock]")


def _read_key(name: str, text: str, environment: Mapping[str, str]) -> str:
    scheme, _, rest = text.partition(":")
    if scheme == "env":
        if not environment.get(rest):
            raise _wrong(f"upstream {name}: the variable {rest} is not set")
        return environment[rest].strip()
    if scheme == "file":
        try:
            return Path(rest).expanduser().read_text("utf-8").strip()
        except OSError as error:
            raise _wrong(f"upstream {name}: {error.strerror}: its key file") from error
    return text


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(f"gateway settings: {message}", code="bad_setting")
