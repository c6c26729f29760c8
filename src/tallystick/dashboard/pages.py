"""The pages: overview, runs, one run, budgets, alerts, audit, broken messages, login.

They only read, but for the forms about an alert and about a broken message.

The browser gets HTML, one stylesheet and two scripts of ours; the content security policy
allows nothing else. Numbers of a chart travel as JSON inside the page.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import jinja2
import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from tallystick.access import SESSION_HOURS
from tallystick.api.auditing import note_answer
from tallystick.api.gate import act_for, address_of
from tallystick.api.requests import check_path, principal_of, read_body, tenant_of
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.api.usage_routes import run_story
from tallystick.clock import format_time
from tallystick.dashboard import alert_pages, audit_pages, broken_pages, budget_pages
from tallystick.dashboard.forms import SESSION_COOKIE, read_form
from tallystick.dashboard.overview import RANGES, build_overview
from tallystick.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    TallystickError,
    Unauthorized,
    Unrepairable,
)

Page = Callable[[Request], Awaitable[Response]]
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_LOGIN_BYTES_MAX = 4096


def pages_of(services: Services) -> list[BaseRoute]:
    """The dashboard's routes."""
    folder = files("tallystick.dashboard")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tallystick.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json_text"] = _json_text
    pages = _Pages(services, environment)
    return [
        Route("/", pages.guarded(pages.overview)),
        Route("/runs", pages.guarded(pages.runs)),
        Route("/runs/{run_id:path}", pages.guarded(pages.run)),
        Route("/budgets", pages.guarded(pages.budgets)),
        Route("/audit", pages.guarded(pages.audit)),
        Route("/broken", pages.guarded(pages.broken)),
        Route("/broken/{broken_id}", pages.guarded(pages.broken_message), methods=["GET", "POST"]),
        Route("/alerts", pages.guarded(pages.alerts)),
        Route("/alerts/{alert_id}", pages.guarded(pages.alert), methods=["GET", "POST"]),
        Route("/login", pages.login, methods=["GET", "POST"]),
        Route("/logout", pages.logout, methods=["POST"]),
        Mount("/static", StaticFiles(directory=str(folder.joinpath("static")))),
    ]


def _json_text(content: object) -> str:
    """JSON that may stand in a script element: no character can end it."""
    text = msgspec.json.encode(content).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Pages:
    def __init__(self, services: Services, environment: jinja2.Environment) -> None:
        self._services = services
        self._environment = environment

    def guarded(self, page: Page) -> Page:
        """Send who has no session to the login."""

        async def guard(request: Request) -> Response:
            try:
                cookie = request.cookies.get(SESSION_COOKIE, "")
                principal = await self._services.access.principal_of_session(
                    cookie, address_of(request)
                )
                if principal is None:
                    return RedirectResponse("/login", 303)
                if not principal.may("usage:read"):
                    raise Forbidden("this needs the permission usage:read")
                act_for(request, principal)
                check_path(request)
                return await page(request)
            except TallystickError as error:
                return self._render("problem.html", error.http_status, message=error.message)

        return guard

    async def overview(self, request: Request) -> Response:
        """Usage and cost over time, errors by tool, credits, freshness."""
        span = request.query_params.get("range", "24h")
        tenant = tenant_of(request, request.query_params.get("tenant", ""))
        is_operator = not principal_of(request).tenant_id
        content = await ask_facts(
            build_overview, self._services, span, tenant, is_operator=is_operator
        )
        return self._render("overview.html", ranges=list(RANGES), **content)

    async def runs(self, request: Request) -> Response:
        """The list of runs."""
        query = request.query_params
        wanted = ("tenant", "status", "team", "feature", "workflow", "model", "tool", "error_code")
        filters = {name: query[name] for name in wanted if query.get(name)}
        if tenant := tenant_of(request, filters.get("tenant", "")):
            filters["tenant"] = tenant
        page = await ask_facts(
            self._services.runs.page, filters, cursor=query.get("cursor"), limit=50
        )
        return self._render(
            "runs.html",
            filters={name: filters.get(name, "") for name in wanted},
            runs=page["runs"],
            next_cursor=page["next_cursor"],
        )

    async def run(self, request: Request) -> Response:
        """What happened in one run."""
        tenant = tenant_of(request, request.query_params.get("tenant", "")) or None
        run_id = request.path_params["run_id"]
        story = await ask_facts(run_story, self._services, run_id, tenant)
        return self._render("run.html", run=story)

    async def broken(self, request: Request) -> Response:
        """The list of broken messages."""
        content = await broken_pages.list_content(self._services, request)
        return self._render("broken.html", **content)

    async def broken_message(self, request: Request) -> Response:
        """One broken message; a POST fixes or dismisses it."""
        error: TallystickError | None = None
        form: dict[str, str] = {}
        if request.method == "POST":
            form = await read_form(request)
            try:
                await broken_pages.act(self._services, request, form)
                return RedirectResponse(request.url.path, 303)
            except (Unrepairable, Conflict, InvalidInput) as refused:
                error = refused
        content = await broken_pages.message_content(self._services, request, error, form)
        status = error.http_status if error else 200
        return self._render("broken_message.html", status, **content)

    async def budgets(self, request: Request) -> Response:
        """Budgets and their windows under way."""
        content = await budget_pages.list_content(self._services, request)
        return self._render("budgets.html", **content)

    async def audit(self, request: Request) -> Response:
        """The audit trail."""
        content = await audit_pages.list_content(self._services, request)
        return self._render("audit.html", **content)

    async def alerts(self, request: Request) -> Response:
        """The list of alerts."""
        content = await alert_pages.list_content(self._services, request)
        return self._render("alerts.html", **content)

    async def alert(self, request: Request) -> Response:
        """One alert; a POST acknowledges or mutes it."""
        error: TallystickError | None = None
        if request.method == "POST":
            try:
                await alert_pages.act(self._services, request)
                return RedirectResponse(request.url.path, 303)
            except (Conflict, InvalidInput) as refused:
                error = refused
        content = await alert_pages.alert_content(self._services, request, error)
        return self._render("alert.html", error.http_status if error else 200, **content)

    async def login(self, request: Request) -> Response:
        """Ask for the key, and set the session cookie for the right one."""
        if request.method == "GET":
            return self._render("login.html", message="")
        started = time.perf_counter()
        answer = await self._log_in(request)
        code = "" if answer.status_code < 400 else "login_refused"
        note_answer(self._services, request, "/login", answer.status_code, code, started)
        return answer

    async def _log_in(self, request: Request) -> Response:
        body = await read_body(request, _LOGIN_BYTES_MAX)
        key = _form_value(body, "key").strip()
        try:
            self._services.audit.check_room()
            access, address = self._services.access, address_of(request)
            session = await access.new_session(key, address)
            request.state.principal = await access.principal_of_session(session, address)
        except (Unauthorized, Forbidden):
            return self._render("login.html", 401, message="That is not the key.")
        except TallystickError as error:
            return self._render("login.html", error.http_status, message=error.message)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            SESSION_COOKIE,
            session,
            max_age=SESSION_HOURS * 3600,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    async def logout(self, request: Request) -> Response:
        """Forget the session."""
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(SESSION_COOKIE)
        return answer

    def _render(self, template: str, status: int = 200, **content: Any) -> Response:
        now = format_time(self._services.clock.now())[:19].replace("T", " ")
        html = self._environment.get_template(template).render(now=now, **content)
        return HTMLResponse(html, status, headers=_HEADERS)


def _form_value(body: bytes, name: str) -> str:
    from urllib.parse import parse_qs

    return parse_qs(body.decode("utf-8", "replace")).get(name, [""])[0]
