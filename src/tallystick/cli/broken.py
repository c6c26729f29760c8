"""`tallystick broken list | show | fix | dismiss`: the commands; the work is in broken_actions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tallystick.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="Broken messages: list, show, fix, dismiss.")
_Id = Annotated[str, typer.Argument(metavar="ID", help="The broken message's id.")]
_Data = Annotated[str | None, typer.Option(help="Data folder of the embedded stores.")]
_Config = Annotated[Path | None, typer.Option(help="A TOML file with settings.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="NAME=VALUE, JSON or text; null leaves it out.")
]
_Tenant = Annotated[str, typer.Option(help="Only of this tenant.")]
_Code = Annotated[str, typer.Option(help="Only of this code.")]
_From = Annotated[str, typer.Option("--from", help="Received at or after, RFC 3339.")]
_To = Annotated[str, typer.Option("--to", help="Received before, RFC 3339.")]
_Cursor = Annotated[str, typer.Option(help="Where the last answer ended.")]


def _settings(data: str | None, config: Path | None) -> Settings:
    return load_settings({"data": data}, os.environ, config)


@app.command("list")
def list_command(
    tenant: _Tenant = "",
    code: _Code = "",
    status: Annotated[str, typer.Option(help="open, fixed or dismissed.")] = "",
    from_at: _From = "",
    to_at: _To = "",
    cursor: _Cursor = "",
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """List broken messages, newest first."""
    filters = {"tenant_id": tenant, "code": code, "status": status}
    filters |= {"from": from_at, "to": to_at, "cursor": cursor}
    from tallystick.cli.broken_actions import run_list

    raise typer.Exit(run_list(_settings(data, config), filters, is_json))


@app.command("show")
def show_command(
    broken_id: _Id, data: _Data = None, config: _Config = None, is_json: _Json = False
) -> None:
    """Show one broken message and what was done about it."""
    from tallystick.cli.broken_actions import run_show

    raise typer.Exit(run_show(_settings(data, config), broken_id, is_json))


@app.command("fix")
def fix_command(
    broken_id: Annotated[str, typer.Argument(metavar="[ID]", help="One message.")] = "",
    given: _Set = None,
    code: _Code = "",
    tenant: _Tenant = "",
    from_at: _From = "",
    to_at: _To = "",
    cursor: _Cursor = "",
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count and show.")] = False,
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """Fix one message by its id, or the open messages of one code."""
    if bool(broken_id) == bool(code):
        raise typer.BadParameter("give an ID, or --code for many")
    if broken_id and is_dry_run:
        raise typer.BadParameter("--dry-run is for many; `broken show` shows one")
    from tallystick.api.broken_routes import FixManyBody
    from tallystick.cli.broken_actions import read_changes, run_fix, run_fix_many

    settings, changes = _settings(data, config), read_changes(given or [])
    if broken_id:
        raise typer.Exit(run_fix(settings, broken_id, changes, is_json))
    body = FixManyBody(code, changes, tenant, from_at, to_at, is_dry_run, cursor or None)
    raise typer.Exit(run_fix_many(settings, body, is_json))


@app.command("dismiss")
def dismiss_command(
    broken_id: _Id,
    reason: Annotated[str, typer.Option(help="Why it needs no fix.")],
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """Say that a broken message needs no fix."""
    from tallystick.cli.broken_actions import run_dismiss

    raise typer.Exit(run_dismiss(_settings(data, config), broken_id, reason, is_json))
