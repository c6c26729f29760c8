"""What is wrong with a request is said by name: each field of each documented body.

Every field of every example in the OpenAPI document is left out, and sent with another type,
empty, huge and unknown. Nothing breaks the server, and what is refused names the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tallystick.api.route_entry import RouteEntry
from tallystick.api.routes import ROUTES
from tests.security.scene import Scene

pytestmark = pytest.mark.slow
_OTHER_PROTOCOL = ("/v1/traces", "/v1/logs")
_WITH_BODY = [
    entry
    for entry in ROUTES
    if isinstance(entry.body_example, dict) and entry.path not in _OTHER_PROTOCOL
]
_WRONG: tuple[Any, ...] = (None, -1, 10**30, 1.5, "", "no such thing", "x" * 5000, True, [], {},
                           ["x"], {"x": 1}, "a\0b", "9" * 400, "NaN")  # fmt: skip


def _spoiled(example: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(field, body with that field left out or wrong)."""
    for field in example:
        yield field, {name: value for name, value in example.items() if name != field}
        for value in _WRONG:
            if field == "idempotency_key" and value in ("no such thing", "NaN"):
                continue  # another key is not a wrong one
            yield field, {**example, field: value}


@pytest.mark.parametrize("entry", _WITH_BODY, ids=lambda one: f"{one.method} {one.path}")
def test_what_is_wrong_is_said_by_name(scene: Scene, entry: RouteEntry) -> None:
    path = entry.path.replace("{", "").replace("}", "").replace(":path", "")
    key = None if entry.is_for_operator else scene.keys["acme", "admin"]
    as_it_is = scene.ask(entry.method, path, key, json=entry.body_example).json()
    unsaid = []
    for field, body in _spoiled(entry.body_example):
        answer = scene.ask(entry.method, path, key, json=body)
        assert answer.status_code < 500, (field, answer.text)
        if answer.status_code != 400 or answer.json()["detail"] == as_it_is.get("detail"):
            continue
        problem = answer.json()
        if field not in problem.get("field", "") and field not in problem["detail"]:
            unsaid.append((field, str(body.get(field, "left out"))[:40], problem["detail"]))
        assert "field" in problem, problem
    assert unsaid == []


def test_what_is_looked_for_may_be_long(scene: Scene) -> None:
    """Parameters that are long in all go to the facts in another form."""
    text = "x'\u00e9\n" * 2000
    answer = scene.ask("GET", "/v1/stats", params={"model": text, "tenant_id": "acme"})
    assert answer.status_code == 200, answer.text
    assert [row["events"] for row in answer.json()["rows"]] == [0]
