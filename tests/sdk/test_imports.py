"""The SDK is light to import: httpx and the provider's packages come with their first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = ("httpx", "openai", "anthropic", "opentelemetry", "psycopg", "starlette", "asyncio.events")


@pytest.mark.parametrize(
    "statement",
    [
        "import tallystick.sdk",
        "from tallystick.sdk import run, tool, attempt, usage, Tallystick",
        "from tallystick.sdk import instrument, TallystickMiddleware",
    ],
)
def test_what_is_heavy_is_not_loaded(statement: str) -> None:
    code = f"{statement}; import sys; print([one for one in {_HEAVY!r} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import tallystick.sdk

    for name in tallystick.sdk.__all__:
        assert getattr(tallystick.sdk, name) is not None
    with pytest.raises(AttributeError):
        _ = tallystick.sdk.nothing
