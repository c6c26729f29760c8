"""`tallystick provider-key set | list | remove`: keys of providers, by the running server.

A key is read from standard input and never from an argument: arguments are seen by everybody
on the machine and stay in the shell's history.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlencode

import msgspec
import typer

from tallystick.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="Keys of providers, kept sealed by the server.")
_PATH = "/v1/provider-keys"
_Upstream = Annotated[str, typer.Argument(help="As the gateway's settings name it.")]
_Tenant = Annotated[str, typer.Option(help="Whose own key; empty: for every tenant without one.")]
_Data = Annotated[str | None, typer.Option(help="Data folder of the embedded stores.")]
_Config = Annotated[Path | None, typer.Option(help="A TOML file with settings.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _settings(data: str | None, config: Path | None) -> Settings:
    return load_settings({"data": data}, os.environ, config)


def _read_key() -> str:
    return (getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()


@app.command("set")
def set_command(
    upstream: _Upstream, tenant: _Tenant = "", data: _Data = None, config: _Config = None
) -> None:
    """Keep the key on standard input; gateways use it within seconds."""
    from tallystick.cli.inspect import fetch

    body = {"key": _read_key(), "tenant_id": tenant}
    made = fetch(_settings(data, config), f"{_PATH}/{quote(upstream, safe='')}", body, "PUT")
    typer.echo(f"{upstream}: the key that ends with {made['last_four'] or '?'} is kept")


@app.command("list")
def list_command(data: _Data = None, config: _Config = None, is_json: _Json = False) -> None:
    """Show which keys are kept; never a key."""
    from tallystick.cli.inspect import fetch

    found = fetch(_settings(data, config), _PATH, None)
    if is_json:
        typer.echo(msgspec.json.encode(found).decode())
        return
    for key in found["provider_keys"]:
        whose = key["tenant_id"] or "everybody"
        typer.echo(
            f"{key['upstream']}  {whose}  ...{key['last_four']}  {key['set_at']}  {key['set_by']}"
        )


@app.command("remove")
def remove_command(
    upstream: _Upstream, tenant: _Tenant = "", data: _Data = None, config: _Config = None
) -> None:
    """Forget a key."""
    from tallystick.cli.inspect import fetch

    query = urlencode({"tenant_id": tenant})
    path = f"{_PATH}/{quote(upstream, safe='')}?{query}"
    fetch(_settings(data, config), path, None, "DELETE")
    typer.echo(f"{upstream}: no key is kept")
