"""The command line: every command, and what it is told."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick import __version__
from tallystick.cli import admin, audit, backfill, broken, budget, provider_key
from tallystick.errors import TallystickError
from tallystick.settings import Settings, load_settings

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The open control plane for AI usage, credits and cost.",
)
app.add_typer(admin.app, name="admin")
app.add_typer(broken.app, name="broken")
app.add_typer(backfill.app, name="backfill")
app.command("audit")(audit.audit)
app.add_typer(budget.app, name="budget")
app.add_typer(provider_key.app, name="provider-key")
Data = Annotated[str | None, typer.Option(help="Data folder of the embedded stores.")]
Config = Annotated[Path | None, typer.Option(help="A TOML file with settings.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ArchiveUrl = Annotated[
    str | None, typer.Option(help="The archive: a folder or s3://bucket/prefix.")
]
archive = typer.Typer(no_args_is_help=True, help="Raw events, kept in Parquet objects.")
app.add_typer(archive, name="archive")


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """Settings from flags, the environment and a file."""
    return load_settings(flags, os.environ, config)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data: Data = None,
    config: Config = None,
) -> None:
    """Run everything in one process tree on embedded stores."""
    from tallystick.cli.serve import run_server

    run_server(settings_of(config, host=host, port=port, data=data))


@app.command()
def demo(
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data: Data = None,
    seed: Annotated[int, typer.Option(help="Seed of the disturbance.")] = 1,
    is_exit: Annotated[bool, typer.Option("--exit", help="End after the summary.")] = False,
) -> None:
    """Run the main job on the real traces that are shipped, and check every figure."""
    from tallystick.cli.demo import run_demo_command

    raise typer.Exit(run_demo_command(settings_of(None, port=port, data=data), seed, is_exit))


@app.command()
def verify(
    data: Data = None,
    config: Config = None,
    is_json: Json = False,
    has_ledger: Annotated[
        bool, typer.Option("--ledger", help="Also hash every sealed operation again.")
    ] = False,
    head: Annotated[
        str, typer.Option("--expect-head", help="A seal kept elsewhere: it must be in the chain.")
    ] = "",
) -> None:
    """Check the invariants on live data; exit 1 when one does not hold."""
    from tallystick.cli.inspect import run_verify

    raise typer.Exit(run_verify(settings_of(config, data=data), is_json, has_ledger, head))


@app.command()
def reconcile(
    what: Annotated[str, typer.Argument(help="What to compare: ledger, events or quotas.")],
    data: Data = None,
    config: Config = None,
    is_json: Json = False,
    is_repairing: Annotated[
        bool, typer.Option("--repair", help="Set rows right by compensating operations.")
    ] = False,
) -> None:
    """Compare the ledger with history, events with each other, or quotas with analytics.

    Exits 1 on a difference.
    """
    from tallystick.cli.backfill_actions import run_reconcile_events
    from tallystick.cli.inspect import run_reconcile
    from tallystick.cli.quotas import run_reconcile_quotas

    if what == "quotas":
        raise typer.Exit(run_reconcile_quotas(settings_of(config, data=data), is_json))
    if what == "events":
        raise typer.Exit(
            run_reconcile_events(settings_of(config, data=data), is_json, is_repairing)
        )
    if what != "ledger":
        raise typer.BadParameter("ledger, events or quotas", param_hint="what")
    raise typer.Exit(run_reconcile(settings_of(config, data=data), is_json, is_repairing))


@app.command()
def trace(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    tenant: Annotated[str | None, typer.Option(help="The run's tenant.")] = None,
    data: Data = None,
    config: Config = None,
    is_json: Json = False,
) -> None:
    """Show what happened in one run, from raw event to charge."""
    from tallystick.cli.inspect import run_trace

    raise typer.Exit(run_trace(settings_of(config, data=data), run_id, tenant, is_json))


@app.command()
def replay(
    data: Data = None,
    config: Config = None,
    is_json: Json = False,
    is_from_archive: Annotated[
        bool, typer.Option("--from-archive", help="Rebuild from the archive, then from the log.")
    ] = False,
    archive_url: ArchiveUrl = None,
    is_vault: Annotated[
        bool, typer.Option("--vault", help="Rebuild what quotas are made of, and only that.")
    ] = False,
    is_restored: Annotated[
        bool,
        typer.Option("--restored", help="PostgreSQL was restored: do not compare with before."),
    ] = False,
) -> None:
    """Wipe derived data, rebuild it from the log, and compare the totals."""
    from tallystick.cli.quotas import run_replay_vault
    from tallystick.cli.replay import run_replay

    settings = settings_of(config, data=data, archive_url=archive_url)
    if is_vault:
        raise typer.Exit(run_replay_vault(settings, is_json))
    raise typer.Exit(run_replay(settings, is_json, is_from_archive, is_restored=is_restored))


@archive.command("verify")
def archive_verify(
    data: Data = None,
    config: Config = None,
    archive_url: ArchiveUrl = None,
    is_json: Json = False,
) -> None:
    """Check every hash, every link and that no offset is missing; exit 1 when one does not hold."""
    from tallystick.cli.archive import run_archive_verify

    settings = settings_of(config, data=data, archive_url=archive_url)
    raise typer.Exit(run_archive_verify(settings, is_json))


@archive.command("list")
def archive_list(
    data: Data = None,
    config: Config = None,
    archive_url: ArchiveUrl = None,
    is_json: Json = False,
) -> None:
    """Show what the archive holds."""
    from tallystick.cli.archive import run_archive_list

    settings = settings_of(config, data=data, archive_url=archive_url)
    raise typer.Exit(run_archive_list(settings, is_json))


@archive.command("clean")
def archive_clean(
    data: Data = None,
    config: Config = None,
    archive_url: ArchiveUrl = None,
    is_json: Json = False,
) -> None:
    """Delete objects that a crash left and no manifest names."""
    from tallystick.cli.archive import run_archive_clean

    settings = settings_of(config, data=data, archive_url=archive_url)
    raise typer.Exit(run_archive_clean(settings, is_json))


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data: Data = None,
    config: Config = None,
) -> None:
    """Run the HTTP API of the distributed form; stores are given by URL."""
    from tallystick.cli.serve import run_server

    run_server(settings_of(config, host=host, port=port, data=data), has_engine=False)


@app.command()
def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data: Data = None,
    config: Config = None,
    gateway_config: Annotated[
        str | None, typer.Option(help="A TOML file with upstreams and routes.")
    ] = None,
) -> None:
    """Run the LLM gateway of the distributed form alone; stores are given by URL."""
    from tallystick.cli.serve import run_server

    settings = settings_of(config, host=host, port=port, data=data, gateway_config=gateway_config)
    run_server(settings, has_engine=False, is_gateway=True)


@app.command()
def worker(
    role: Annotated[str, typer.Argument(help="sink, vault, charger, keeper or archiver.")],
    host: Annotated[str, typer.Option(help="Address of health and metrics.")] = "127.0.0.1",
    health_port: Annotated[int, typer.Option(help="Port of health and metrics.")] = 9100,
    data: Data = None,
    config: Config = None,
) -> None:
    """Run one role of the distributed form; stores are given by URL."""
    from tallystick.cli.worker import run_worker

    run_worker(settings_of(config, data=data), role, host, health_port)


@app.command()
def migrate(config: Config = None) -> None:
    """Bring the stores of the distributed form up to date: schemas, rate cards, topics."""
    from tallystick.bootstrap import migrate as migrate_stores

    migrate_stores(settings_of(config))
    typer.echo("the stores are up to date")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run a command; a failure of ours is one clear line."""
    try:
        app()
    except TallystickError as error:
        typer.echo(f"tallystick: {error.message}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
