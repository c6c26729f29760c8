"""Where a provider's client meets its HTTP library: each request on the wire is one call.

Metering sits at `send` of the client's own HTTP client, below its retries: so each retry is
authorized anew, and everything above (raw responses, stream helpers, parsing) works as it
did. A refusal must not be retried, so it travels up as an answer of status 402 that says
"do not retry", and is raised as what it is where the provider's client would raise it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from tallystick.errors import TallystickError
from tallystick.sdk.client import stand
from tallystick.sdk.context import error_code_of, here, propagated_headers
from tallystick.sdk.errors import Unreachable
from tallystick.sdk.metering.bodies import ModelRequest, read_request
from tallystick.sdk.metering.meter import (
    MeteredCall,
    begin,
    declare_budget,
    declare_budget_async,
)
from tallystick.sdk.metering.streams import library_of, meter_stream
from tallystick.sdk.recorder import Recorder

_REFUSAL = "tallystick_refusal"
_NEVER_SENT = frozenset(
    (
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "WriteError",
        "WriteTimeout",
        "UnsupportedProtocol",
        "LocalProtocolError",
        "ProxyError",
    )
)
"""Failures by which the provider did not get the whole request: it cannot have billed it."""


class Address:
    """Where one client of a provider sends its requests, and who records them."""

    def __init__(
        self, base_url: str, provider: str, recorder: Recorder | None, *, is_gateway: bool
    ) -> None:
        self.base_url = base_url
        self.provider = provider
        self.recorder = recorder
        self.is_gateway = is_gateway
        """The other end is Tallystick's gateway, which meters by itself."""


class Wire:
    """The metered `send` of one HTTP client, which clients of several providers may share."""

    def __init__(self, http: Any) -> None:
        self._send = http.send
        self._addresses: list[Address] = []

    def serve(self, address: Address) -> None:
        """Meter what goes to this address too; the first of each counts."""
        if all(one.base_url != address.base_url for one in self._addresses):
            self._addresses.append(address)

    def _address_of(self, request: Any) -> Address:
        """Whose request it is; what fits none, such as a signed address, is the first's."""
        if len(self._addresses) == 1:
            return self._addresses[0]
        url = str(request.url)
        fitting = [one for one in self._addresses if url.startswith(one.base_url)]
        return max(fitting, key=lambda one: len(one.base_url), default=self._addresses[0])

    def send(self, request: Any, **options: Any) -> Any:
        """Authorize, send, settle."""
        address = self._address_of(request)
        if address.is_gateway:
            return self._send_gateway(request, address, options)
        prepared = self._prepare(request, address, is_raw=bool(options.get("stream")))
        if prepared is None:
            return self._send(request, **options)
        request, metered = prepared
        try:
            metered.authorize()
        except TallystickError as refusal:
            return _refused(request, refusal)
        try:
            response = self._send(request, **options)
        except Exception as error:
            if _was_never_sent(error):
                metered.cancel()
            else:
                metered.settle("failed", error_code_of(error))
            raise
        except BaseException as error:
            metered.settle_by_spool("cancelled", error_code_of(error))
            raise
        if _is_unbilled(response, address):
            metered.cancel()
        elif self._take(response, metered, library_of(request), is_async=False):
            metered.settle("completed")
        return response

    async def send_async(self, request: Any, **options: Any) -> Any:
        """Authorize, send, settle."""
        address = self._address_of(request)
        if address.is_gateway:
            return await self._send_gateway_async(request, address, options)
        prepared = self._prepare(request, address, is_raw=bool(options.get("stream")))
        if prepared is None:
            return await self._send(request, **options)
        request, metered = prepared
        try:
            await metered.authorize_async()
        except TallystickError as refusal:
            return _refused(request, refusal)
        try:
            response = await self._send(request, **options)
        except Exception as error:
            if _was_never_sent(error):
                await metered.cancel_async()
            else:
                await metered.settle_async("failed", error_code_of(error))
            raise
        except BaseException as error:
            metered.settle_by_spool("cancelled", error_code_of(error))
            raise
        if _is_unbilled(response, address):
            await metered.cancel_async()
        elif self._take(response, metered, library_of(request), is_async=True):
            await metered.settle_async("completed")
        return response

    def _send_gateway(self, request: Any, address: Address, options: Any) -> Any:
        """The gateway meters; it is told of the run, and of its budget before the first call."""
        if here.get().run is not None:
            recorder, place = stand(address.recorder)
            try:
                declare_budget(recorder, place)
            except TallystickError as refusal:
                if not _goes_on_without(recorder, refusal):
                    return _refused(request, refusal)
        request.headers.update(propagated_headers())
        return self._send(request, **options)

    async def _send_gateway_async(self, request: Any, address: Address, options: Any) -> Any:
        """The same, awaiting."""
        if here.get().run is not None:
            recorder, place = stand(address.recorder)
            try:
                await declare_budget_async(recorder, place)
            except TallystickError as refusal:
                if not _goes_on_without(recorder, refusal):
                    return _refused(request, refusal)
        request.headers.update(propagated_headers())
        return await self._send(request, **options)

    @staticmethod
    def _prepare(request: Any, address: Address, *, is_raw: bool) -> tuple[Any, MeteredCall] | None:
        """The request as it is sent, and its call; None when it is not metered."""
        try:
            body = request.content
        except Exception:
            return None  # a body that is streamed up: no call of ours
        found = read_request(request.method, request.url.path, body)
        if found is None:
            return None
        if is_raw:
            request.headers["accept-encoding"] = "identity"  # read as it passes
        metered = begin(found, address.provider, address.recorder)
        return _asking_for_usage(request, found), metered

    def _take(self, response: Any, metered: MeteredCall, library: str, *, is_async: bool) -> bool:
        """Read a whole answer (True), or let its stream settle the call (False)."""
        headers = response.headers
        metered.provider_request_id = headers.get("x-request-id", headers.get("request-id", ""))
        if response.is_closed:
            metered.reading.take_answer(response.content)
            return True
        meter_stream(response, metered, library, is_async=is_async)
        return False


def _is_unbilled(response: Any, address: Address) -> bool:
    """Refused by the provider, or metered already: by the gateway, under whatever name."""
    if "x-tallystick-hold" in response.headers or "x-tallystick-cost-usd" in response.headers:
        address.is_gateway = True
    return bool(address.is_gateway or response.status_code >= 400)


def _goes_on_without(recorder: Recorder, refusal: TallystickError) -> bool:
    """Whether a call is made although its run's budget could not be told."""
    return isinstance(refusal, Unreachable) and recorder.settings.on_unreachable == "spool"


def _asking_for_usage(request: Any, found: ModelRequest) -> Any:
    if not found.hides_usage:
        return request
    headers = request.headers.copy()
    del headers["content-length"]
    return type(request)(
        request.method,
        request.url,
        headers=headers,
        content=found.body,
        extensions=request.extensions,
    )


def _was_never_sent(error: Exception) -> bool:
    return any(one.__name__ in _NEVER_SENT for one in type(error).__mro__)


def _refused(request: Any, refusal: TallystickError) -> Any:
    """A refusal as an answer that no client retries."""
    content = {"error": {"message": refusal.message, "type": "tallystick", "code": refusal.code}}
    return sys.modules[library_of(request)].Response(
        402,
        headers={"x-should-retry": "false"},
        json=content,
        request=request,
        extensions={_REFUSAL: refusal},
    )


def _refusal_in(error: Exception) -> TallystickError | None:
    extensions = getattr(getattr(error, "response", None), "extensions", None) or {}
    found = extensions.get(_REFUSAL)
    return found if isinstance(found, TallystickError) else None


def raising_refusals(request: Callable[..., Any]) -> Callable[..., Any]:
    """The client's `request`, raising a refusal as what it is."""

    @functools.wraps(request)
    def asked(*arguments: Any, **options: Any) -> Any:
        try:
            return request(*arguments, **options)
        except Exception as error:
            refusal = _refusal_in(error)
            if refusal is None:
                raise
            raise refusal from None

    return asked


def raising_refusals_async(request: Callable[..., Any]) -> Callable[..., Any]:
    """The client's `request`, raising a refusal as what it is."""

    @functools.wraps(request)
    async def asked(*arguments: Any, **options: Any) -> Any:
        try:
            return await request(*arguments, **options)
        except Exception as error:
            refusal = _refusal_in(error)
            if refusal is None:
                raise
            raise refusal from None

    return asked
