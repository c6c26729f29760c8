"""`tallystick audit`: the audit trail as NDJSON, newest first, for wherever it is kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

import typer

from tallystick.api.audit_routes import page_of
from tallystick.cli.inspect import ask
from tallystick.settings import load_settings

_PAGE = 5_000


def audit(
    from_at: Annotated[str, typer.Option("--from", help="At or after, RFC 3339.")] = "",
    to_at: Annotated[str, typer.Option("--to", help="Before, RFC 3339.")] = "",
    tenant: Annotated[str, typer.Option(help="Only of this tenant.")] = "",
    subject: Annotated[str, typer.Option(help="Only what this subject did.")] = "",
    decision: Annotated[str, typer.Option(help="allowed, denied or failed.")] = "",
    data: Annotated[str | None, typer.Option(help="Data folder of the embedded stores.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
) -> None:
    """Write the audit trail as one JSON object a line, newest first (the last day by default)."""
    settings = load_settings({"data": data}, os.environ, config)
    wanted = {
        "from": from_at,
        "to": to_at,
        "tenant_id": tenant,
        "subject": subject,
        "decision": decision,
    }
    query = {name: value for name, value in wanted.items() if value} | {"limit": str(_PAGE)}
    while True:
        page = ask(
            settings, f"/v1/audit?{urlencode(query)}", lambda services: page_of(services, query)
        )
        for record in page["records"]:
            typer.echo(json.dumps(record))
        if not page["next_cursor"]:
            return
        query["cursor"] = page["next_cursor"]
