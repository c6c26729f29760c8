"""Middleware for ASGI: each request is a run, a child of the caller's when it says so.

    app = TallystickMiddleware(app, workflow="api", attribution=lambda scope: {"feature": ...})

Headers that are read: X-Tallystick-Run (the caller's run, which becomes the parent) and
`traceparent`, which is kept and passed on by `propagated_headers()`. All that moves money is
read only from callers that `trusts` names, because anybody can send a header: who pays
(X-Tallystick-Team, -Feature, -User ...), and -Root-Run, whose budget is drawn on. A stranger's
parent is a link in the tree of runs and no more: the run is the root of its own. With
`emits_runs=False` the work of a caller that is trusted counts as part of its run, under its
attempt, and no run of its own is recorded; a stranger's request is a run of its own as ever,
else attempts that it counts up would make all but the last of its calls free.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from tallystick.header_text import text_of_header
from tallystick.sdk.client import stand
from tallystick.sdk.context import RunFrame, here, plain_text
from tallystick.sdk.recorder import Recorder, clean_attribution
from tallystick.sdk.spans import Run
from tallystick.sdk.work import DIMENSIONS, FIELD_OF_DIMENSION

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PREFIX = b"x-tallystick-"
_PAYING = (DIMENSIONS | FIELD_OF_DIMENSION.keys()) - {"workflow", "agent"}
_NAMES_MAX = 32


class _ServerFailed(Exception):
    """The application answered with a status of 500 or more."""


class TallystickMiddleware:
    """Marks the runs of an ASGI application."""

    def __init__(
        self,
        app: App,
        *,
        client: Recorder | None = None,
        workflow: str = "http",
        attribution: Callable[[Scope], Mapping[str, Any]] | None = None,
        trusts: Callable[[Scope], bool] = lambda _: False,
        emits_runs: bool = True,
    ) -> None:
        self._app = app
        self._client = client
        self._workflow = workflow
        self._attribution = attribution
        self._trusts = trusts
        self._emits_runs = emits_runs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; what is no HTTP request passes by."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = read_headers(scope["headers"])
        is_trusted = self._trusts(scope)
        attribution = told.attribution if is_trusted else {}
        if self._attribution is not None:
            attribution = attribution | clean_attribution(self._attribution(scope))
        if is_trusted and told.run_id and not self._emits_runs:
            await self._join(told, attribution, scope, receive, send)
            return
        run_id = stand(self._client)[0].ids.next_id()
        root_run_id = told.root_run_id if is_trusted else run_id
        one = Run(
            self._client,
            workflow=self._workflow,
            run_id=run_id,
            budget_usd=None,
            attribution=attribution,
            parent_run_id=told.run_id,
            root_run_id=root_run_id,
            traceparent=told.traceparent,
        )
        await self._run(one, scope, receive, send)

    async def _run(self, one: Run, scope: Scope, receive: Receive, send: Send) -> None:
        statuses: list[int] = []

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        try:
            async with one:
                await self._app(scope, receive, noting)
                if statuses and statuses[0] >= 500:
                    raise _ServerFailed
        except _ServerFailed:
            pass  # recorded; the answer is under way already

    async def _join(
        self, told: Told, attribution: dict[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        _, place = stand(self._client)
        frame = RunFrame(
            told.run_id, parent_run_id=told.parent_run_id, root_run_id=told.root_run_id
        )
        token = here.set(
            place._replace(
                run=frame,
                attempt=told.attempt,
                attribution={**place.attribution, **attribution},
                traceparent=told.traceparent,
            )
        )
        try:
            await self._app(scope, receive, send)
        finally:
            here.reset(token)


class Told:
    """What a request's headers say."""

    run_id = ""
    parent_run_id = ""
    root_run_id = ""
    attempt = 1
    traceparent = ""

    def __init__(self) -> None:
        self.attribution: dict[str, str] = {}

    def take(self, name: str, value: str) -> None:
        """Take one header of ours, without its prefix."""
        if name == "run":
            self.run_id = value
        elif name == "parent_run":
            self.parent_run_id = value
        elif name == "root_run":
            self.root_run_id = value
        elif name == "attempt" and value.isascii() and value.isdigit():
            self.attempt = max(int(value[:9]), 1)
        elif name in _PAYING and len(self.attribution) < _NAMES_MAX:
            self.attribution[name] = value


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> Told:
    """Read the headers of a scope."""
    told = Told()
    for name, value in headers:
        if name != b"traceparent" and not name.startswith(_PREFIX):
            continue
        try:
            text = plain_text(text_of_header(value))
        except UnicodeDecodeError:
            continue
        if name == b"traceparent":
            told.traceparent = text
        elif text:
            told.take(name[len(_PREFIX) :].decode("latin-1").replace("-", "_"), text)
    return told
