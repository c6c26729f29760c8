"""What the audit trail is told of a request: who, what, when, and what was decided.

A change and a denial are durable before they are answered. The busy routes, whose effects the
ledger and the log record anyhow, and reads are written a moment later. Requests without a
valid key are folded, so that guessing keys fills no disk.
"""

from __future__ import annotations

import time

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tallystick.access import Principal
from tallystick.api.services import Services
from tallystick.audit import Record
from tallystick.audit.model import decision_of

_BUSY = frozenset({"holds:write", "usage:write", "gateway:call"})
_TARGET_LENGTH_MAX = 300


class _Problem(msgspec.Struct):
    code: str = ""


_problem_decoder = msgspec.json.Decoder(_Problem)


async def audit(
    services: Services,
    request: Request,
    route: str,
    needs: str,
    response: Response,
    started: float,
) -> None:
    """Record a request that was answered; raises SlowDown or StoreUnavailable when it cannot be."""
    code = _code_of(response) if response.status_code >= 400 else ""
    record = record_of(services, request, route, response.status_code, code, started)
    if record.status == 401:
        services.audit.fold(record)
    elif needs in _BUSY or (request.method == "GET" and record.decision != "denied"):
        services.audit.note(record)
    else:
        await services.audit.write(record)


def note_answer(
    services: Services, request: Request, route: str, status: int, code: str, started: float
) -> None:
    """Record what had to be answered (`check_room` let it begin), or fold a wrong key."""
    record = record_of(services, request, route, status, code, started)
    if status == 401:
        services.audit.fold(record)
    else:
        services.audit.note(record, has_room=True)


def record_of(
    services: Services, request: Request, route: str, status: int, code: str, started: float
) -> Record:
    """Who asked for what, and what became of it."""
    principal: Principal | None = getattr(request.state, "principal", None)
    return Record(
        at=services.clock.now(),
        tenant_id=principal.tenant_id if principal else "",
        subject=principal.subject if principal else "",
        service_id=principal.service_id if principal else "",
        cost_center=principal.cost_center if principal else "",
        method=request.method,
        route=route,
        target="/".join(map(str, request.path_params.values()))[:_TARGET_LENGTH_MAX],
        status=status,
        decision=decision_of(status),
        code=code,
        remote=request.client.host if request.client else "",
        requests=1,
        duration_us=int((time.perf_counter() - started) * 1_000_000),
    )


def _code_of(response: Response) -> str:
    if response.media_type != "application/problem+json":
        return ""
    return _problem_decoder.decode(bytes(response.body)).code
