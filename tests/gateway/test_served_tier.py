"""A call is priced by the tier that served it, which its answer says, and not by what it asked."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.gateway.place import Place, ask

STANDARD, FLEX, PRIORITY = "0.01125", "0.005625", "0.0225"
"""USD of 1,000 tokens in and 1,000 out of gpt-5, by tier."""


def send(place: Place, surface: str, mark: str, **more: Any) -> httpx.Response:
    text = f"#normal in=1000 out=1000 {mark}#"
    body: dict[str, Any] = {"model": "gpt-5", **more}
    body |= {"input": text} if surface == "responses" else {"messages": ask(text)}
    headers = place.headers() | {"Authorization": f"Bearer {place.key}"}
    answer = httpx.post(f"{place.url}/openai/v1/{surface}", json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("surface", ["chat/completions", "responses"])
@pytest.mark.parametrize(
    ("asked", "served", "cost_usd"),
    [
        ("", "default", STANDARD),
        ("", "priority", PRIORITY),
        ("auto", "priority", PRIORITY),
        ("flex", "flex", FLEX),
        ("flex", "default", STANDARD),
        ("priority", "default", STANDARD),
    ],
)
def test_what_served_is_charged(
    place: Place, surface: str, asked: str, served: str, cost_usd: str
) -> None:
    more = {"service_tier": asked} if asked else {}
    answer = send(place, surface, f"tier={served}", **more)
    assert answer.headers["x-tallystick-cost-usd"] == cost_usd


@pytest.mark.parametrize(
    ("asked", "served", "cost_usd"),
    [("fast", "fast", "0.06"), ("fast", "default", "0.03"), ("standard", "default", "0.03")],
)
def test_fast_mode_has_prices_of_its_own(
    place: Place, asked: str, served: str, cost_usd: str
) -> None:
    """1,000 tokens in and 1,000 out of claude-opus-5, as fast as it was served."""
    with_raw = place.anthropic().messages.with_raw_response
    mark = f"#normal in=1000 out=1000 tier={served}#"
    options: Any = {"model": "claude-opus-5", "max_tokens": 2000, "speed": asked}
    answer = with_raw.create(messages=ask(mark), **options)
    assert answer.headers["x-tallystick-cost-usd"] == cost_usd


@pytest.mark.parametrize("surface", ["chat/completions", "responses"])
def test_a_stream_says_it_too(place: Place, surface: str) -> None:
    costs = {}
    for served in ("default", "priority"):
        answer = send(place, surface, f"tier={served}", stream=True, service_tier="flex")
        run = place.run(answer.headers["x-tallystick-run"])
        costs[served] = run["cost_usd"]
    assert costs == {"default": STANDARD, "priority": PRIORITY}
