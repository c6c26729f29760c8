"""The gateway: authorize, call the provider, settle, for apps that change their base_url.

Owns surfaces, upstreams, streams, routing and the order of one call's steps. Never decides
about money (`enforcement.calls` does), never keeps a prompt or an answer: bodies live in
memory for as long as their request. Keeps breakers and counts in memory. Time: a call lives
as long as its request, and its hold a little longer.
"""

from tallystick.gateway.gateway import Gateway, make_gateway
from tallystick.gateway.settings import GatewaySettings, load_gateway_settings

__all__ = ["Gateway", "GatewaySettings", "load_gateway_settings", "make_gateway"]
