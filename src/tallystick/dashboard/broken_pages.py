"""The pages of broken messages: the list, and one message with a form to fix it.

They show the redacted draft, never content. The form changes something, so it carries a
token bound to the session; what it sends is judged like any other fix.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from starlette.requests import Request

from tallystick.api.broken_routes import own_parameters, page_of
from tallystick.api.requests import tenant_of
from tallystick.api.services import Services
from tallystick.api.threads import ask_facts
from tallystick.dashboard.forms import form_token_of, require_form
from tallystick.errors import InvalidInput, TallystickError
from tallystick.events.fields import COMMON, FIELDS, PARTICULAR_BY_TYPE, REQUIRED, Form
from tallystick.events.redaction import is_hidden

_FILTERS = ("tenant_id", "code", "status")
_NUMBERS = {Form.COUNT, Form.POSITIVE}


async def list_content(services: Services, request: Request) -> dict[str, Any]:
    """What the list shows."""
    query = request.query_params
    filters = {name: query[name] for name in _FILTERS if query.get(name)}
    cursor = {"cursor": query["cursor"]} if query.get("cursor") else {}
    parameters = own_parameters(request, {**filters, **cursor})
    page = await ask_facts(page_of, services, parameters)
    return {"filters": {name: filters.get(name, "") for name in _FILTERS}, **page}


async def message_content(
    services: Services,
    request: Request,
    error: TallystickError | None = None,
    form: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What the page of one message shows; `error` is why the fix in `form` was refused."""
    broken_id = request.path_params["broken_id"]
    message = await ask_facts(services.broken.get, broken_id, tenant_of(request))
    return {
        "message": message,
        "rows": _rows(message, form or {}),
        "form_token": form_token_of(services, request),
        "error": error,
    }


def _rows(message: Mapping[str, Any], form: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row a field: of the draft first, then what the type could have as well."""
    draft: dict[str, Any] = dict(message["draft"] or {})
    draft.pop("attrs", None)
    known = PARTICULAR_BY_TYPE.get(str(draft.get("event_type")), ())
    possible = [field.name for field in COMMON if field.name not in ("attrs", "tenant_id")]
    wanted = [message["field"], *REQUIRED, *draft, *possible, *known]
    names = [name for name in dict.fromkeys(wanted) if name in FIELDS and name != "attrs"]
    if message["tenant_id"] != "unknown":
        names.remove("tenant_id")
    return [
        {
            "name": name,
            "value": draft.get(name, ""),
            "is_given": name in draft,
            "is_hidden": is_hidden(draft.get(name)),
            "is_wrong": name == message["field"],
            "is_required": name in REQUIRED,
            "is_shown": name in draft or name in REQUIRED or name == message["field"],
            "entered": form.get(f"set.{name}", ""),
            "is_dropped": f"drop.{name}" in form,
            "description": FIELDS[name].description,
        }
        for name in names
    ]


async def act(services: Services, request: Request, form: Mapping[str, str]) -> None:
    """Do what the form says; raises what a refused fix raises."""
    principal = require_form(services, request, form, "usage:write")
    broken_id, tenant_id = request.path_params["broken_id"], principal.tenant_id
    if form.get("action") == "dismiss":
        await ask_facts(
            services.broken.dismiss,
            broken_id,
            form.get("reason", ""),
            principal.subject,
            tenant_id=tenant_id,
        )
    elif form.get("action") == "fix":
        await services.broken.fix(
            broken_id, changes_of(form), principal.subject, tenant_id=tenant_id
        )
    else:
        raise InvalidInput("the form says neither fix nor dismiss", field="action")


def changes_of(form: Mapping[str, str]) -> dict[str, Any]:
    """The fields that a form sets: `set.NAME` with a value, `drop.NAME` to leave one out.

    >>> changes_of({"set.tokens_input": "12", "set.run_id": "", "drop.user_id": "on"})
    {'tokens_input': 12, 'user_id': None}
    """
    changes: dict[str, Any] = {}
    for key, text in form.items():
        verb, _, name = key.partition(".")
        if verb == "set" and text.strip():
            changes[name] = value_of(name, text.strip())
        elif verb == "drop":
            changes[name] = None
    return changes


def value_of(name: str, text: str) -> Any:
    """Read a typed text as the field's form wants it; the rules judge what does not fit."""
    form = FIELDS[name].form if name in FIELDS else Form.TEXT
    if form in _NUMBERS and text.lstrip("-").isdecimal() and len(text) < 20:
        return int(text)
    if form == Form.LATENCY and text.replace(".", "", 1).isdecimal():
        return Decimal(text)
    if form == Form.FLAG and text in ("true", "false"):
        return text == "true"
    return text
