"""`tallystick budget set | list | show | delete`: the commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick.errors import InvalidInput
from tallystick.settings import Settings, load_settings

app = typer.Typer(
    no_args_is_help=True, help="Budgets: limits that are decided before work is made."
)
_Id = Annotated[str, typer.Argument(metavar="ID", help="The budget's id.")]
_Tenant = Annotated[str, typer.Option(help="Whose budget it is.")]
_Data = Annotated[str | None, typer.Option(help="Data folder of the embedded stores.")]
_Config = Annotated[Path | None, typer.Option(help="A TOML file with settings.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _settings(data: str | None, config: Path | None) -> Settings:
    return load_settings({"data": data}, os.environ, config)


def _pairs(given: list[str] | None, what: str) -> dict[str, str]:
    pairs = [one.partition("=") for one in given or []]
    if not all(name and value for name, _, value in pairs):
        raise InvalidInput(f"--{what} takes NAME=VALUE", field=what)
    return {name: value for name, _, value in pairs}


@app.command("set")
def set_command(
    budget_id: _Id,
    tenant: _Tenant,
    amount: Annotated[str | None, typer.Option(help="How much in a window.")] = None,
    asset: Annotated[str | None, typer.Option(help="USD, CREDIT, tokens or requests.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option(help='DIMENSION=VALUE, "*" for each value; may repeat.')
    ] = None,
    window: Annotated[str | None, typer.Option(help="day, week, month or rolling.")] = None,
    hours: Annotated[int | None, typer.Option(help="Of a rolling window.")] = None,
    anchor: Annotated[int | None, typer.Option(help="First day of a week or month.")] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone, an IANA name.")] = None,
    carry_over: Annotated[str | None, typer.Option(help="At most so much is carried over.")] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help="SHARE=ACTION, such as 0.8=alert; may repeat.")
    ] = None,
    enforcement: Annotated[str | None, typer.Option(help="hard or soft.")] = None,
    is_shadow: Annotated[
        bool | None, typer.Option("--shadow/--no-shadow", help="Only count what would be blocked.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="active or paused.")] = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """Make a budget, or change what is named of it."""
    from tallystick.cli.budget_actions import run_set

    given: dict[str, Any] = {
        "amount": amount,
        "asset": asset,
        "scope": _pairs(scope, "scope") if scope else None,
        "window": window,
        "rolling_hours": hours,
        "anchor_day": anchor,
        "time_zone": zone,
        "carry_over_max": carry_over,
        "thresholds": [
            {"at": at, "action": action} for at, action in _pairs(threshold, "threshold").items()
        ]
        if threshold
        else None,
        "enforcement": enforcement,
        "shadow": is_shadow,
        "status": status,
        "name": name,
    }
    raise typer.Exit(run_set(_settings(data, config), tenant, budget_id, given, is_json))


@app.command("list")
def list_command(
    tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "",
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """List budgets."""
    from tallystick.cli.budget_actions import run_list

    raise typer.Exit(run_list(_settings(data, config), tenant, is_json))


@app.command("show")
def show_command(
    budget_id: _Id,
    tenant: _Tenant,
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """Show a budget and what was used of its windows."""
    from tallystick.cli.budget_actions import run_show

    raise typer.Exit(run_show(_settings(data, config), tenant, budget_id, is_json))


@app.command("delete")
def delete_command(
    budget_id: _Id,
    tenant: _Tenant,
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """End a budget; its history stays."""
    from tallystick.cli.budget_actions import run_delete

    raise typer.Exit(run_delete(_settings(data, config), tenant, budget_id, is_json))
