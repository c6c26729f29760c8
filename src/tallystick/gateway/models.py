"""The list of models: routes by name, models that the settings name, and the upstreams' own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from tallystick.access import Principal
from tallystick.gateway.keys import KeyRing
from tallystick.gateway.model import UpstreamFailed
from tallystick.gateway.outbound import Outbound
from tallystick.gateway.routing import is_allowed
from tallystick.gateway.settings import GatewaySettings, Upstream


class _Listed(msgspec.Struct):
    data: list[dict[str, Any]] = []


async def find_models(
    settings: GatewaySettings, outbound: Outbound, keys: KeyRing, principal: Principal
) -> dict[str, dict[str, Any]]:
    """The models that this principal may call, by name, each in OpenAI's shape."""
    found: dict[str, dict[str, Any]] = {}
    for name, route in settings.routes.items():
        if not route.is_off:
            found[name] = _entry(name, "tallystick")
    on = [upstream for upstream in settings.upstreams.values() if not upstream.is_off]
    lists = await asyncio.gather(*[_listed(outbound, one, keys, principal) for one in on])
    for upstream, entries in zip(on, lists, strict=True):
        for name in upstream.models:
            if "*" not in name:
                found.setdefault(name, _entry(name, upstream.provider))
        for entry in entries:
            name = str(entry.get("id") or "")
            if name and is_allowed(name, upstream.models):
                found.setdefault(name, entry)
    allowed = principal.models
    return {
        name: entry
        for name, entry in found.items()
        if (not allowed or is_allowed(name, allowed)) and not is_allowed(name, settings.models_off)
    }


def list_of(models: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A list in OpenAI's shape."""
    return {"object": "list", "data": list(models.values())}


def _has_list(upstream: Upstream) -> bool:
    return upstream.speaks == "openai" and not upstream.is_translated


async def _listed(
    outbound: Outbound, upstream: Upstream, keys: KeyRing, principal: Principal
) -> list[dict[str, Any]]:
    """What an upstream lists, where its names are not all set; one that is slow lists nothing."""
    if not _has_list(upstream) or not any("*" in name for name in upstream.models):
        return []
    try:
        async with asyncio.timeout(upstream.connect_seconds):
            keyed = keys.keyed(upstream, principal.tenant_id)
            answer = await outbound.send(keyed, "/models", b"", {}, method="GET")
            body = await answer.read()
        return msgspec.json.decode(body, type=_Listed).data if answer.status == 200 else []
    except (UpstreamFailed, TimeoutError, msgspec.DecodeError):
        return []


def _entry(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
