"""The OpenAPI document, tried against the server: it is true, and no input breaks a route.

schemathesis makes requests from the document: good ones, and ones that the document does not
allow. The same on every run. Keys are those of a tenant's admin: what is for the operator alone
is refused, which has to be in the document too.
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from tallystick.api.openapi import build_openapi
from tallystick.api.routes import ROUTES
from tallystick.gateway.surfaces import COUNTING, SURFACES
from tests.security.scene import Scene

pytestmark = pytest.mark.slow
_EXAMPLES = 4
_CHECKS: list[CheckFunction] = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

_document = schemathesis.openapi.from_dict(build_openapi())
_operations: dict[str, Any] = {}
for _found in _document.get_all_operations():
    assert isinstance(_found, Ok)
    _operation = _found.ok()
    _operations[_operation.label] = _operation


def test_every_door_is_in_the_document() -> None:
    """Routes, the gateway's paths and the token endpoint; not pages, health or the document."""
    gateway = {("POST", one.path) for one in (*SURFACES, *COUNTING)}
    doors = {(one.method, one.path.replace(":path", "")) for one in ROUTES} | gateway
    doors |= {("GET", f"/openai/v1/models{one}") for one in ("", "/{model}")}
    doors.add(("POST", "/oauth/token"))
    paths = build_openapi()["paths"]
    said = {(method.upper(), path) for path, item in paths.items() for method in item}
    assert doors <= said
    assert {path for _, path in said - doors} == {
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
    }


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label in _operations
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if mode == GenerationMode.POSITIVE or "/.well-known/" not in label  # nothing can be wrong
    ],
)
def test_no_input_breaks_a_route(scene: Scene, label: str, mode: GenerationMode) -> None:
    operation = _operations[label]
    headers = {"Authorization": f"Bearer {scene.keys['acme', 'admin']}"}

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=_EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def attack(case: Case[Any]) -> None:
        response = case.call(base_url=scene.url, headers=headers)
        case.validate_response(response, checks=_CHECKS)

    attack()
