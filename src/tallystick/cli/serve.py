"""Starts the product in this process tree."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import typer

from tallystick.api import server
from tallystick.api.app import create_app
from tallystick.bootstrap import Platform, gateway_of, open_platform, services_of
from tallystick.cli.process import prepare_process
from tallystick.dashboard import pages_of
from tallystick.errors import DataFolderInUse, StoreUnavailable, TallystickError
from tallystick.settings import Settings

_SWITCH_SECONDS = 0.001
"""How long a thread that got its answer from PostgreSQL may wait for the interpreter.

With the default of 5 ms each decision of the ledger would wait that long behind HTTP work.
"""


_COLLECT_AFTER = (20_000, 20, 50)
"""Objects between collections: a full one in the middle of requests costs them milliseconds."""


class ServerAddress(msgspec.Struct):
    """Where the running server of a data folder answers (`server.json` in it)."""

    url: str
    pid: int


def run_server(
    settings: Settings,
    on_ready: Callable[[Platform], None] | None = None,
    *,
    has_engine: bool = True,
    is_gateway: bool = False,
) -> None:
    """Serve until SIGTERM; print one line when ready. `is_gateway`: model calls alone."""
    prepare_process()
    sys.setswitchinterval(_SWITCH_SECONDS)
    with open_platform(settings, has_engine=has_engine) as platform:
        try:
            listener = server.bind(settings.host, settings.port)
        except OSError as error:
            raise TallystickError(
                f"port {settings.port} on {settings.host} cannot be taken ({error.strerror}); "
                "choose another with --port",
                code="port_in_use",
            ) from error
        address = listener.getsockname()
        url = f"http://{settings.host}:{address[1]}"
        services = services_of(platform)
        gateway = gateway_of(services, settings)
        pages = gateway.routes if is_gateway else [*pages_of(services), *gateway.routes]
        app = create_app(
            services, pages, gateway.endpoints, gateway.close, has_routes=not is_gateway
        )

        def ready() -> None:
            if not settings.admin_key:
                typer.echo(f"admin key: {platform.folder.path / 'admin.key'}")
            typer.echo(f"tallystick is ready at {url}")
            gc.collect()
            gc.freeze()  # what is there now stays: later collections need not look at it
            gc.set_threshold(*_COLLECT_AFTER)
            if on_ready is not None:
                on_ready(platform)

        with _address_file(platform.folder.path, url):
            server.run(app, listener, on_ready=ready, tend=lambda: _tend(platform))


def _tend(platform: Platform) -> None:
    with suppress(StoreUnavailable):  # tried again in a second; /readyz says it meanwhile
        if platform.postgres is not None:
            platform.postgres.ensure_running()
        if platform.engine is not None:
            platform.engine.ensure_running()


@contextmanager
def _address_file(folder: Path, url: str) -> Iterator[None]:
    path = folder / "server.json"
    path.write_bytes(msgspec.json.encode(ServerAddress(url, os.getpid())))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def read_address(folder: Path) -> ServerAddress:
    """Where the server that owns the folder answers."""
    try:
        return msgspec.json.decode((folder / "server.json").read_bytes(), type=ServerAddress)
    except (OSError, msgspec.DecodeError) as error:
        raise DataFolderInUse(f"{folder} is in use, but its server is not ready") from error
