"""One role of the distributed form in this process, with its health and metrics over HTTP."""

from __future__ import annotations

import gc

import msgspec
import typer
from prometheus_client import REGISTRY, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tallystick.api import server
from tallystick.bootstrap import worker_options
from tallystick.cli.process import prepare_process
from tallystick.clock import SystemClock
from tallystick.errors import InvalidInput
from tallystick.settings import Settings
from tallystick.workers.loop import FollowerLoop
from tallystick.workers.roles import Roles

ROLES = ("sink", "vault", "charger", "keeper", "archiver")
_NAMED_ALSO = {"scheduler": "keeper"}
"""The public contract speaks of the scheduler."""

_COLLECT_AFTER = (100_000, 50, 100)


def run_worker(settings: Settings, role: str, host: str, health_port: int) -> None:
    """Run until SIGTERM; prints one line when it works."""
    role = _NAMED_ALSO.get(role, role)
    if role not in ROLES:
        raise InvalidInput(f"role must be one of {', '.join(ROLES)}", field="role")
    prepare_process()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    settings.data_folder.mkdir(parents=True, exist_ok=True)
    roles = Roles(worker_options(settings), SystemClock())
    loops: list[FollowerLoop] = getattr(roles, role)()
    listener = server.bind(host, health_port)
    url = f"http://{host}:{listener.getsockname()[1]}"
    try:
        for loop in loops:
            loop.start()
        server.run(
            _health(loops),
            listener,
            on_ready=lambda: typer.echo(f"tallystick worker {role} is ready at {url}"),
            tend=lambda: None,
        )
    finally:
        for loop in loops:
            loop.stop()
        roles.close()


def _health(loops: list[FollowerLoop]) -> Starlette:
    async def healthz(_: Request) -> Response:
        return _answer({"status": "ok"}, 200)

    async def readyz(_: Request) -> Response:
        failures = {loop.name: loop.failure for loop in loops if loop.failure}
        is_ready = not failures and all(loop.is_alive() for loop in loops)
        return _answer({"ready": is_ready, **failures}, 200 if is_ready else 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(REGISTRY), media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ]
    )


def _answer(content: dict[str, object], status: int) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
