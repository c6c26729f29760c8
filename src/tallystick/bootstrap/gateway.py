"""The gateway of this process: its settings, the gate before it and the money behind it."""

from __future__ import annotations

import os

from starlette.requests import Request

from tallystick.access import Principal
from tallystick.api.services import Services
from tallystick.gateway import Gateway, load_gateway_settings, make_gateway
from tallystick.ids import Uuid7Source
from tallystick.settings import Settings


def gateway_of(services: Services, settings: Settings) -> Gateway:
    """Make the gateway; raises InvalidInput for settings that cannot work."""

    async def authenticate(request: Request) -> Principal:
        return await services.gate.admit(request, "gateway:call")

    return make_gateway(
        services.calls,
        load_gateway_settings(settings.gateway_config, os.environ),
        authenticate,
        services.clock,
        Uuid7Source(services.clock),
    )
