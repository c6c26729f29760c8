"""What `tallystick admin ...` does: asks the running server, or works in the data folder."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from tallystick.access import OPERATOR
from tallystick.api.access_routes import (
    CredentialBody,
    credential_json,
    grant_of,
    with_secret,
)
from tallystick.cli.inspect import ask
from tallystick.errors import InvalidInput
from tallystick.settings import Settings

_PATH = "/v1/api-keys"
_SHOWN_MAX = 500


def run_create(settings: Settings, body: dict[str, Any], is_json: bool) -> int:
    """Make a key."""
    try:
        grant = grant_of(msgspec.convert(body, CredentialBody), str(body["tenant_id"]))
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error)) from error
    answer = ask(
        settings,
        _PATH,
        lambda services: with_secret(*services.access.create("key", grant, OPERATOR)),
        body=body,
    )
    return _print_made(answer, is_json)


def run_list(settings: Settings, tenant_id: str, is_json: bool) -> int:
    """Print keys, newest first."""
    answer = ask(
        settings,
        f"{_PATH}?{urlencode({'tenant_id': tenant_id, 'limit': _SHOWN_MAX})}",
        lambda services: {
            "api_keys": [
                credential_json(one)
                for one in services.access.page("key", tenant_id, "", _SHOWN_MAX)
            ]
        },
    )
    if is_json:
        print(msgspec.json.encode(answer).decode())  # noqa: T201
        return 0
    for one in answer["api_keys"]:
        state = "revoked" if one["revoked_at"] else f"last used {one['used_at'] or 'never'}"
        whose = one["tenant_id"] or "(operator)"
        allows = ",".join([*one["roles"], *one["scopes"]])
        print(f"{one['key_id']}  ts_{one['prefix']}_…  {whose}  {allows}  {state}")  # noqa: T201
        print(f"    {one['name']}")  # noqa: T201
    return 0


def run_revoke(settings: Settings, key_id: str, is_json: bool) -> int:
    """End a key."""
    answer = ask(
        settings,
        f"{_PATH}/{quote(key_id, safe='')}",
        lambda services: credential_json(services.access.revoke("key", key_id, OPERATOR)),
        method="DELETE",
    )
    if is_json:
        print(msgspec.json.encode(answer).decode())  # noqa: T201
    else:
        print(f"revoked: {answer['key_id']} ({answer['name']})")  # noqa: T201
    return 0


def run_rotate(settings: Settings, key_id: str, overlap_seconds: int, is_json: bool) -> int:
    """Give a key a new secret."""
    answer = ask(
        settings,
        f"{_PATH}/{quote(key_id, safe='')}/rotate",
        lambda services: with_secret(
            *services.access.rotate("key", key_id, overlap_seconds, OPERATOR)
        ),
        body={"overlap_seconds": overlap_seconds},
    )
    return _print_made(answer, is_json)


def _print_made(answer: dict[str, Any], is_json: bool) -> int:
    if is_json:
        print(msgspec.json.encode(answer).decode())  # noqa: T201
    else:
        print(answer["key"])  # noqa: T201
        note = f"key_id {answer['key_id']}; the key is shown this once"
        print(note, file=sys.stderr)  # noqa: T201 - so that KEY=$(tallystick ...) holds the key
    return 0
