"""What `tallystick broken ...` does: asks the running server, or works in the data folder."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from tallystick.access import OPERATOR
from tallystick.api.broken_routes import FixManyBody, fix_many, page_of
from tallystick.cli.inspect import ask
from tallystick.errors import InvalidInput
from tallystick.settings import Settings

_PATH = "/v1/broken-messages"


def read_changes(given: list[str]) -> dict[str, Any]:
    """Read `NAME=VALUE`: the value is JSON (12, true, null) or else text.

    >>> read_changes(["attempt=1", "model=gpt-4o", "run_id=null"])
    {'attempt': 1, 'model': 'gpt-4o', 'run_id': None}
    """
    changes: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not name or not equals:
            raise InvalidInput(f"--set takes NAME=VALUE, not {one!r}", field="set")
        try:
            changes[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            changes[name] = text
    return changes


def run_list(settings: Settings, filters: dict[str, str], is_json: bool) -> int:
    """Print broken messages, newest first."""
    given = {name: value for name, value in filters.items() if value}
    answer = ask(settings, f"{_PATH}?{urlencode(given)}", lambda services: page_of(services, given))
    if is_json:
        _print_json(answer)
        return 0
    if not answer["broken_messages"]:
        print("nothing is broken")  # noqa: T201
        return 0
    for one in answer["broken_messages"]:
        received = one["received_at"][:19].replace("T", " ")
        print(f"{one['broken_id']}  {received}  {one['tenant_id']}  {one['status']}")  # noqa: T201
        print(f"    {one['code']}: {one['reason']} (seen {one['times_seen']} times)")  # noqa: T201
    if answer["next_cursor"]:
        print(f"more: --cursor {answer['next_cursor']}")  # noqa: T201
    return 0


def run_show(settings: Settings, broken_id: str, is_json: bool) -> int:
    """Print one broken message."""
    answer = ask(settings, _path(broken_id), lambda services: services.broken.get(broken_id))
    if is_json:
        _print_json(answer)
        return 0
    print(f"{answer['broken_id']} of {answer['tenant_id']}: {answer['status']}")  # noqa: T201
    print(f"{answer['code']}: {answer['reason']}")  # noqa: T201
    for name, value in (answer["draft"] or {}).items():
        print(f"  {name} = {json.dumps(value)}")  # noqa: T201
    for action in answer["actions"]:
        print(  # noqa: T201
            f"{action['acted_at']} {action['kind']} {action['outcome']} {action['event_id']} "
            f"by {action['acted_by']} {action['reason']}"
        )
    return 0


def run_fix(settings: Settings, broken_id: str, changes: dict[str, Any], is_json: bool) -> int:
    """Fix one message."""
    answer = ask(
        settings,
        _path(broken_id, "/fix"),
        lambda services: asyncio.run(services.broken.fix(broken_id, changes, OPERATOR.subject)),
        body={"set": changes},
    )
    if is_json:
        _print_json(answer)
    else:
        print(f"fixed: event {answer['event_id']} ({answer['outcome']})")  # noqa: T201
    return 0


def run_fix_many(settings: Settings, body: FixManyBody, is_json: bool) -> int:
    """Fix many messages; return 1 when some are still broken."""
    answer = ask(
        settings,
        f"{_PATH}:fix",
        lambda services: asyncio.run(fix_many(services, body, OPERATOR.subject)),
        body=msgspec.to_builtins(body),
    )
    if is_json:
        _print_json(answer)
    else:
        _print_many(answer)
    return 1 if answer["still_broken"] or answer["conflicts"] else 0


def _print_many(answer: dict[str, Any]) -> None:
    verb = "could be fixed" if answer["dry_run"] else "fixed"
    count = answer["repairable"] if answer["dry_run"] else answer["fixed"]
    print(f"{count} of {answer['examined']} {verb}")  # noqa: T201
    if answer["conflicts"]:
        print(f"{answer['conflicts']} in conflict with other events")  # noqa: T201
    for entry in answer["still_broken"]:
        print(f"{entry['count']} still broken: {entry['reason']} ({entry['example']})")  # noqa: T201
    for sample in answer["samples"]:
        print(f"  {sample['broken_id']} -> {json.dumps(sample['event'])}")  # noqa: T201
    if answer["next_cursor"]:
        print(f"more: --cursor {answer['next_cursor']}")  # noqa: T201


def run_dismiss(settings: Settings, broken_id: str, reason: str, is_json: bool) -> int:
    """Dismiss one message."""
    answer = ask(
        settings,
        _path(broken_id, "/dismiss"),
        lambda services: services.broken.dismiss(broken_id, reason, OPERATOR.subject),
        body={"reason": reason},
    )
    if is_json:
        _print_json(answer)
    else:
        print(f"dismissed: {answer['broken_id']}")  # noqa: T201
    return 0


def _path(broken_id: str, verb: str = "") -> str:
    return f"{_PATH}/{quote(broken_id, safe='')}{verb}"


def _print_json(answer: dict[str, Any]) -> None:
    print(msgspec.json.encode(answer).decode())  # noqa: T201
