"""`demo`: a server on a fresh data folder, the traces sent to it, the figures compared."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path

import msgspec
from rich.console import Console

from tallystick.bootstrap import Platform
from tallystick.cli.serve import read_address, run_server
from tallystick.demo.runner import print_summary, run_demo
from tallystick.errors import InvalidInput
from tallystick.settings import Settings

_MARK = "demo-data"


def run_demo_command(settings: Settings, seed: int, is_exit: bool) -> int:
    """Run the demo; return 1 when a figure differs."""
    console = Console()
    fresh = msgspec.structs.replace(settings, data=_fresh_folder(settings))
    if is_exit:
        fresh = msgspec.structs.replace(fresh, port=0)
    outcome = {"code": 1}

    def on_ready(platform: Platform) -> None:
        worker = threading.Thread(target=_run, args=(platform, seed, is_exit, outcome, console))
        worker.daemon = True
        worker.start()

    run_server(fresh, on_ready)
    return outcome["code"]


def _run(
    platform: Platform, seed: int, is_exit: bool, outcome: dict[str, int], console: Console
) -> None:
    try:
        url = read_address(platform.folder.path).url
        now = platform.clock.now()
        result = run_demo(url, platform.admin_key, now=now, seed=seed, console=console)
        print_summary(console, result)
        outcome["code"] = 0 if result.agrees else 1
        if not is_exit:
            console.print(f"dashboard: {url}/ (the login asks for the admin key); Ctrl-C ends")
    except Exception:
        console.print_exception()
        is_exit = True
    if is_exit:
        os.kill(os.getpid(), signal.SIGTERM)


def _fresh_folder(settings: Settings) -> str:
    """A folder of the demo's own, emptied; never one that holds other data."""
    folder = settings.data_folder
    if settings.data == Settings().data:
        folder = Path(settings.data) / "demo"
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARK).exists():
            raise InvalidInput(f"{folder} holds other data; give the demo an empty folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, mode=0o700)
    (folder / _MARK).touch()
    return str(folder)
