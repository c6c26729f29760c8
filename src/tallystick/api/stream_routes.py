"""The balance as server-sent events, for a page that shows credits left while they go.

Format: WHATWG HTML, "Server-sent events"; the id is the account's sequence.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tallystick.api.ledger_routes import balance_json
from tallystick.api.requests import tenant_of
from tallystick.api.route_entry import RouteEntry
from tallystick.api.services import Services

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def get_balance_stream(services: Services, request: Request) -> Response:
    """Send the balance at once and after every change until the client goes away."""
    account_id = request.path_params["account_id"]
    tenant_id = tenant_of(request)
    # 404 before the stream begins
    await asyncio.to_thread(services.ledger.balance, account_id, tenant_id=tenant_id)

    async def events() -> AsyncIterator[bytes]:
        async for sequence in services.feed.changes(account_id):
            if not await services.gate.still_admits(request):
                return  # the key was revoked or changed meanwhile
            if sequence is None:
                yield b": still here\n\n"
                continue
            balance = await asyncio.to_thread(
                services.ledger.balance, account_id, tenant_id=tenant_id
            )
            text = msgspec.json.encode(balance_json(balance)).decode()
            yield f"id: {balance.sequence}\nevent: balance\ndata: {text}\n\n".encode()

    return StreamingResponse(events(), media_type="text/event-stream", headers=_HEADERS)


ROUTES: tuple[RouteEntry, ...] = (
    RouteEntry(
        "GET",
        "/v1/accounts/{account_id:path}/balance/stream",
        get_balance_stream,
        "The balance as server-sent events: at once, and after every change",
        'event: balance\\ndata: {"account_id": "acme", "available": "99.4936"}\\n\\n',
        media_type="text/event-stream",
        needs="ledger:read",
    ),
)
"""Entries of the table of routes."""
