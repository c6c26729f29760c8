"""`tallystick backfill run | list | show | revert | pause | resume`: the commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tallystick.settings import Settings, load_settings

app = typer.Typer(
    no_args_is_help=True, help="Backfills: rate facts again, by a running server, and undo it."
)
_Id = Annotated[str, typer.Argument(metavar="ID", help="The backfill's id.")]
_Data = Annotated[str | None, typer.Option(help="Data folder of the embedded stores.")]
_Config = Annotated[Path | None, typer.Option(help="A TOML file with settings.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
_Key = Annotated[str, typer.Option("--key", help="Idempotency key; a new one by default.")]
_NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for its end.")]


def _settings(data: str | None, config: Path | None) -> Settings:
    return load_settings({"data": data}, os.environ, config)


@app.command("run")
def run_command(
    from_at: Annotated[str, typer.Option("--from", help="Happened at or after, RFC 3339.")],
    to_at: Annotated[str, typer.Option("--to", help="Happened before, RFC 3339.")],
    reason: _Reason,
    tenants: Annotated[list[str] | None, typer.Option("--tenant", help="Only these.")] = None,
    models: Annotated[list[str] | None, typer.Option("--model", help="Only these.")] = None,
    version: Annotated[
        int, typer.Option("--rate-card-version", help="Instead of its card's others.")
    ] = 0,
    rate: Annotated[int, typer.Option(help="Events a second; 0: the default.")] = 0,
    key: _Key = "",
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report.")] = False,
    is_not_waiting: _NoWait = False,
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """Rate facts of a range again; exit 1 when it fails."""
    from tallystick.cli.backfill_actions import run_backfill

    body = {
        "from": from_at,
        "to": to_at,
        "reason": reason,
        "tenant_ids": tenants or [],
        "models": models or [],
        "rate_card_version": version or None,
        "dry_run": is_dry_run,
        "idempotency_key": key,
    }
    if rate:
        body["events_per_second_max"] = rate
    settings = _settings(data, config)
    raise typer.Exit(run_backfill(settings, body, is_json, is_waiting=not is_not_waiting))


@app.command("list")
def list_command(data: _Data = None, config: _Config = None, is_json: _Json = False) -> None:
    """List backfills, newest first."""
    from tallystick.cli.backfill_actions import run_list

    raise typer.Exit(run_list(_settings(data, config), is_json))


@app.command("show")
def show_command(
    backfill_id: _Id, data: _Data = None, config: _Config = None, is_json: _Json = False
) -> None:
    """Show one backfill with its report before and after."""
    from tallystick.cli.backfill_actions import run_show

    raise typer.Exit(run_show(_settings(data, config), backfill_id, is_json))


@app.command("revert")
def revert_command(
    backfill_id: _Id,
    reason: _Reason,
    key: _Key = "",
    is_not_waiting: _NoWait = False,
    data: _Data = None,
    config: _Config = None,
    is_json: _Json = False,
) -> None:
    """Undo a backfill by another one; exit 1 when it fails."""
    from tallystick.cli.backfill_actions import run_revert

    settings, waiting = _settings(data, config), not is_not_waiting
    body = {"reason": reason, "idempotency_key": key}
    raise typer.Exit(run_revert(settings, backfill_id, body, is_json, is_waiting=waiting))


@app.command("pause")
def pause_command(
    backfill_id: _Id, data: _Data = None, config: _Config = None, is_json: _Json = False
) -> None:
    """Stop a backfill before its next piece."""
    from tallystick.cli.backfill_actions import run_verb

    raise typer.Exit(run_verb(_settings(data, config), backfill_id, "pause", is_json))


@app.command("resume")
def resume_command(
    backfill_id: _Id, data: _Data = None, config: _Config = None, is_json: _Json = False
) -> None:
    """Let a paused or failed backfill go on."""
    from tallystick.cli.backfill_actions import run_verb

    raise typer.Exit(run_verb(_settings(data, config), backfill_id, "resume", is_json))
