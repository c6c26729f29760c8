"""One server with a gateway, and the scripted upstream behind it, for all tests of limits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.limits.scene import Scene, Tenant, open_scene

_serial = count()


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with open_scene(tmp_path_factory.mktemp("limits")) as opened:
        yield opened


@pytest.fixture
def tenant(scene: Scene) -> Tenant:
    """A tenant of its own, with credit and a key."""
    return Tenant(scene, f"joined-{next(_serial)}")
