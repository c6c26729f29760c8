"""`tallystick admin key create | list | revoke | rotate`: keys, by the server or in the folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="What the operator does: keys.")
key = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke, rotate.")
app.add_typer(key, name="key")
_Id = Annotated[str, typer.Argument(metavar="ID", help="The key's id, not the key.")]
_Data = Annotated[str | None, typer.Option(help="Data folder of the embedded stores.")]
_Config = Annotated[Path | None, typer.Option(help="A TOML file with settings.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Tenant = Annotated[str, typer.Option(help="Whose; without one it is the operator's.")]


def _settings(data: str | None, config: Path | None) -> Settings:
    return load_settings({"data": data}, os.environ, config)


@key.command("create")
def create_command(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    tenant: _Tenant = "",
    role: Annotated[list[str] | None, typer.Option(help="A role; may be given again.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="A permission beside the roles'.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model it may call.")] = None,
    address: Annotated[list[str] | None, typer.Option(help="A network it may come from.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends, RFC 3339.")] = None,
    service: Annotated[str, typer.Option(help="The service that uses it.")] = "",
    cost_center: Annotated[str, typer.Option(help="Who pays.")] = "",
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """Make a key and print it, once."""
    from tallystick.cli.admin_actions import run_create

    body: dict[str, Any] = {
        "name": name,
        "tenant_id": tenant,
        "roles": role or [],
        "scopes": scope or [],
        "models": model or [],
        "addresses": address or [],
        "expires_at": expires,
        "service_id": service,
        "cost_center": cost_center,
    }
    raise typer.Exit(run_create(_settings(data, config), body, is_json))


@key.command("list")
def list_command(
    tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "",
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """List keys, newest first."""
    from tallystick.cli.admin_actions import run_list

    raise typer.Exit(run_list(_settings(data, config), tenant, is_json))


@key.command("revoke")
def revoke_command(
    key_id: _Id, data: _Data = None, config: _Config = None, is_json: _Json = False
) -> None:
    """End a key, everywhere, within a second."""
    from tallystick.cli.admin_actions import run_revoke

    raise typer.Exit(run_revoke(_settings(data, config), key_id, is_json))


@key.command("rotate")
def rotate_command(
    key_id: _Id,
    overlap: Annotated[int, typer.Option(help="Seconds that the old one stays good.")] = 0,
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """Give a key a new secret and print it, once."""
    from tallystick.cli.admin_actions import run_rotate

    raise typer.Exit(run_rotate(_settings(data, config), key_id, overlap, is_json))
