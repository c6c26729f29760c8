"""Metering of the official provider clients, without the gateway.

    client = instrument(OpenAI())          # or AsyncOpenAI, Anthropic, AsyncAnthropic
    client.chat.completions.create(...)    # authorized, made, settled; LimitReached when refused

Owns the way of one call: authorize, call, settle. Never keeps text of a prompt or an answer.
A client whose base URL is Tallystick's gateway is not metered twice: its requests only carry
the run and attribution. `instrument` twice is once. Copies (`with_options`) are metered too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tallystick.errors import InvalidInput
from tallystick.sdk.client import stand
from tallystick.sdk.metering.wire import Address, Wire, raising_refusals, raising_refusals_async
from tallystick.sdk.recorder import Recorder

C = TypeVar("C")

_PROVIDERS = {
    "OpenAI": "openai",
    "AsyncOpenAI": "openai",
    "AzureOpenAI": "azure",
    "AsyncAzureOpenAI": "azure",
    "Anthropic": "anthropic",
    "AsyncAnthropic": "anthropic",
}
_MARK = "_tallystick_wire"


def instrument(client: C, *, provider: str = "", tallystick: Recorder | None = None) -> C:
    """Meter every model call of `client`; return the same client.

    `provider` is the name that its models are priced under, when it is not the maker of the
    client (an internal server that speaks OpenAI's API). Raises InvalidInput for a client of
    another kind.
    """
    made: Any = client
    named = next((one.__name__ for one in type(client).__mro__ if one.__name__ in _PROVIDERS), "")
    http = getattr(made, "_client", None)
    if not named or http is None or not hasattr(http, "send"):
        raise InvalidInput(
            "instrument takes a client of the packages openai or anthropic", code="unknown_client"
        )
    if not hasattr(http, _MARK):
        wire = Wire(http)
        setattr(http, _MARK, wire)
        http.send = wire.send_async if inspect.iscoroutinefunction(http.send) else wire.send
    base_url = str(made.base_url)
    is_gateway = _is_gateway(base_url, tallystick)
    getattr(http, _MARK).serve(
        Address(base_url, provider or _PROVIDERS[named], tallystick, is_gateway=is_gateway)
    )
    if not hasattr(made, _MARK):
        setattr(made, _MARK, True)
        _wrap(made, functools.partial(instrument, provider=provider, tallystick=tallystick))
    return client


def _wrap(client: Any, again: Callable[[Any], Any]) -> None:
    if inspect.iscoroutinefunction(client.request):
        client.request = raising_refusals_async(client.request)
    else:
        client.request = raising_refusals(client.request)
    copy = client.copy

    @functools.wraps(copy)
    def copied(*arguments: Any, **options: Any) -> Any:
        return again(copy(*arguments, **options))

    client.copy = client.with_options = copied


def _is_gateway(base_url: str, tallystick: Recorder | None) -> bool:
    try:
        recorder, _ = stand(tallystick)
    except InvalidInput:
        return False  # no client yet: each call will ask again
    ours, theirs = urlsplit(recorder.settings.url), urlsplit(base_url)
    return (ours.scheme, ours.netloc) == (theirs.scheme, theirs.netloc)
