"""`Tallystick` and `AsyncTallystick`: what an application makes once, or leaves to its settings.

Without one of its own, `run()`, `tool()` and `instrument()` use the default client, made at
first use from TALLYSTICK_URL and TALLYSTICK_KEY (and TALLYSTICK_ACCOUNT, TALLYSTICK_TENANT,
TALLYSTICK_SPOOL). The two classes record alike; they differ in how they wait.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tallystick.clock import Clock
from tallystick.errors import InvalidInput
from tallystick.ids import IdSource
from tallystick.sdk.context import Place, here
from tallystick.sdk.recorder import (
    OnFull,
    OnUnreachable,
    Recorder,
    Settings,
    clean_attribution,
)
from tallystick.sdk.spool.files import Fsync
from tallystick.sdk.spool.sender import Backoff


class _Client(Recorder):
    """What both clients share."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        account_id: str = "",
        tenant_id: str = "",
        source: str = "",
        attribution: Mapping[str, Any] | None = None,
        spool: Path | str | None = None,
        spool_bytes_max: int = 64 * 1024 * 1024,
        fsync: Fsync = "group",
        on_unreachable: OnUnreachable = "spool",
        on_full: OnFull = "raise",
        block_seconds: float = 30.0,
        timeout_seconds: float = 5.0,
        exit_seconds: float = 5.0,
        ttl_seconds: int = 600,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """`spool` is a folder; without one, what is pending lives in memory.

        `on_unreachable` "spool" lets a model call go on when it cannot be authorized and
        charges it later: limits do not bind meanwhile. "refuse" raises Unreachable instead.
        """
        _check_url(url)
        settings = Settings(
            url=url.rstrip("/"),
            key=key,
            account_id=account_id,
            tenant_id=tenant_id,
            source=source,
            attribution=clean_attribution(attribution),
            spool=Path(spool) if spool else None,
            spool_bytes_max=spool_bytes_max,
            fsync=fsync,
            on_unreachable=on_unreachable,
            on_full=on_full,
            block_seconds=block_seconds,
            timeout_seconds=timeout_seconds,
            exit_seconds=exit_seconds,
            ttl_seconds=ttl_seconds,
        )
        super().__init__(settings, clock=clock, ids=ids, backoff=backoff)
        # spans import this module, to find the default client
        from tallystick.sdk import metering, reported, spans

        self.run = partial(spans.run, client=self)
        self.attempt = partial(spans.attempt, client=self)
        self.tool = partial(spans.tool, client=self)
        self.usage = partial(reported.usage, client=self)
        self.instrument = partial(metering.instrument, tallystick=self)


class Tallystick(_Client):
    """The client of synchronous code; also a context manager that closes it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncTallystick(_Client):
    """The client of asynchronous code: what waits, waits without blocking the loop."""

    async def aflush(self, timeout: float = 10.0) -> bool:
        """Deliver all that is pending; False when `timeout` seconds were not enough."""
        import asyncio  # 60 ms that synchronous applications need not pay

        return await asyncio.to_thread(self.flush, timeout)

    async def aclose(self, timeout: float = 10.0) -> None:
        """Deliver what can be, and end."""
        import asyncio

        await self.async_transport.close()
        await asyncio.to_thread(self.close, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _check_url(url: str) -> None:
    """Refuse at once what would look like a server that is away, for ever."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(
            "url is where Tallystick answers, such as http://127.0.0.1:8787",
            code="bad_url",
            field="url",
        )


_default: Recorder | None = None
_default_lock = threading.Lock()


def default_client() -> Recorder:
    """The client of the whole process, made at first use from TALLYSTICK_* variables."""
    global _default
    with _default_lock:
        if _default is None:
            url, key = os.environ.get("TALLYSTICK_URL"), os.environ.get("TALLYSTICK_KEY")
            if not url or not key:
                raise InvalidInput(
                    "set TALLYSTICK_URL and TALLYSTICK_KEY, or make a Tallystick(url, key)",
                    code="no_client",
                )
            _default = Tallystick(
                url,
                key,
                account_id=os.environ.get("TALLYSTICK_ACCOUNT", ""),
                tenant_id=os.environ.get("TALLYSTICK_TENANT", ""),
                spool=os.environ.get("TALLYSTICK_SPOOL") or None,
            )
        return _default


def set_default_client(client: Recorder | None) -> None:
    """Make `client` the one that module-level functions use; None: ask the settings again."""
    global _default
    with _default_lock:
        _default = client


def stand(client: Recorder | None) -> tuple[Recorder, Place]:
    """The client that records the work here, and the place it stands at."""
    place = here.get()
    recorder = client or place.recorder or default_client()
    if place.run is None and not place.attribution:
        place = place._replace(attribution=recorder.settings.attribution)
    return recorder, place._replace(recorder=recorder)
