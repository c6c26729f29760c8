"""`archive verify | list | clean`: ask the archive itself; no server and no store is needed."""

from __future__ import annotations

import json

import msgspec
from rich.console import Console
from rich.table import Table

from tallystick.archive import Archive, Findings, collect_garbage, verify_archive
from tallystick.plumbing.objects import open_objects
from tallystick.settings import Settings


def open_archive(settings: Settings) -> Archive:
    """The archive that the settings name."""
    return Archive(open_objects(settings.archive_place))


def run_archive_verify(settings: Settings, is_json: bool) -> int:
    """Hash every object and follow every chain; return 1 when something does not hold."""
    findings = verify_archive(open_archive(settings))
    _show(findings, is_json)
    return 1 if findings.violations else 0


def run_archive_list(settings: Settings, is_json: bool) -> int:
    """Show what the archive holds, by its manifests alone."""
    findings = verify_archive(open_archive(settings), has_content=False)
    _show(findings, is_json)
    return 1 if findings.violations else 0


def run_archive_clean(settings: Settings, is_json: bool) -> int:
    """Delete data objects that crashes left and no manifest names."""
    garbage = collect_garbage(open_archive(settings))
    if is_json:
        print(json.dumps({"deleted": garbage}))  # noqa: T201
    else:
        Console().print(f"{len(garbage)} objects deleted")
    return 0


def _show(findings: Findings, is_json: bool) -> None:
    if is_json:
        print(msgspec.json.encode(findings).decode())  # noqa: T201
        return
    console = Console()
    table = Table("partition", "from offset", "to offset", "events", "objects", "bytes", "a event")
    for one in findings.partitions:
        each = f"{one.byte_count / one.rows:.1f}" if one.rows else ""
        figures = (one.offset_start, one.offset_end, one.rows, one.objects, one.byte_count)
        table.add_row(str(one.partition), *(f"{figure:,}" for figure in figures), each)
    console.print(table)
    if findings.garbage:
        console.print(f"{len(findings.garbage)} objects belong to no manifest (archive clean)")
    for violation in findings.violations:
        console.print(f"[red]{violation}[/red]")
    if not findings.violations:
        console.print("the archive is whole")
