"""Whose work a call is: by the key or token first, then by headers, then by the body.

What a key or token says cannot be changed by a caller. Header names are
X-Tallystick-{Team,Product,Feature,...}; a body says it in `metadata`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tallystick.access import Principal
from tallystick.bounds import ID_LENGTH_MAX
from tallystick.errors import InvalidInput
from tallystick.header_text import text_of_header

DIMENSIONS = (
    "org",
    "team",
    "product",
    "feature",
    "user",
    "project",
    "workflow",
    "agent",
    "environment",
    "customer_tier",
    "cost_center",
)
_PREFIX = "x-tallystick-"
_HEADERS = {f"{_PREFIX}{name.replace('_', '-')}".encode(): name for name in DIMENSIONS}
_RUN_HEADERS = {
    b"x-tallystick-run": "run_id",
    b"x-tallystick-parent-run": "parent_run_id",
    b"x-tallystick-root-run": "root_run_id",
    b"x-tallystick-attempt": "attempt",
    b"x-tallystick-account": "account_id",
}


class CallPlace(NamedTuple):
    """Where in a tree of runs a call belongs, and to whom."""

    run_id: str
    parent_run_id: str
    root_run_id: str
    attempt: int
    account_id: str
    attribution: Mapping[str, str]


def place_of(
    principal: Principal, headers: list[tuple[bytes, bytes]], metadata: Mapping[str, str]
) -> CallPlace:
    """Read the place of a call; raises InvalidInput for a header that is too long."""
    said = {name: _printable(metadata[name]) for name in DIMENSIONS if metadata.get(name)}
    runs: dict[str, str] = {}
    for name, value in headers:
        if not name.startswith(b"x-tallystick-"):
            continue
        if name in _HEADERS:
            said[_HEADERS[name]] = _text(name, value)
        elif name in _RUN_HEADERS:
            runs[_RUN_HEADERS[name]] = _text(name, value)
    if said:
        said = {name: value[:ID_LENGTH_MAX] for name, value in said.items() if value}
    said.update(principal.attribution)
    return CallPlace(
        runs.get("run_id", ""),
        runs.get("parent_run_id", ""),
        runs.get("root_run_id", ""),
        _attempt(runs.get("attempt", "1")),
        runs.get("account_id", "") if not principal.tenant_id else "",
        said,
    )


def _printable(text: str) -> str:
    """What a body says, which is made for the provider and not for us, without what we refuse."""
    return text if text.isprintable() else "".join([one for one in text if one.isprintable()])


def _text(name: bytes, value: bytes) -> str:
    try:
        text = text_of_header(value)
    except UnicodeDecodeError:
        text = ""
    if len(text) > ID_LENGTH_MAX or not (text.isprintable() and text):
        raise InvalidInput(
            f"{name.decode('latin-1')} must be printable text of at most {ID_LENGTH_MAX} letters",
            code="bad_header",
        )
    return text


def _attempt(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text) > 0):
        raise InvalidInput("x-tallystick-attempt must be a whole number from 1", code="bad_header")
    return int(text)
