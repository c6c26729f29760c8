"""Weeks of traffic made of the real traces, with incidents injected: input of the back-test.

What is real: the token counts of every call, how many calls came in each minute of the recorded
hours (Azure chat and code traces), and which tools the recorded agents called and how often they
failed (tau-bench). What is made up, by seed: the traces are one hour long, so weeks are made by
thinning that hour with a curve of day and night and of weekends; calls are spread over keys,
users and features by Zipf's law. Hours are made independently of each other, so a run may begin
anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tallystick.clock import HOUR, SECOND
from tallystick.demo.traces import _azure_rows, airline_runs
from tallystick.enforcement.overrun.model import SeriesKey
from tallystick.enforcement.overrun.series import Change, Point

Floats = np.ndarray[Any, np.dtype[Any]]

MONDAY = 490_992 * HOUR
"""2026-01-05 00:00 UTC, a Monday."""

PRICES = {
    "gpt-4o": (2500, 10000, 1250),
    "gpt-4o-mini": (150, 600, 75),
    "gpt-4.1": (2000, 8000, 500),
    "gpt-4.1-mini": (400, 1600, 100),
    "claude-opus-4-1": (15000, 75000, 1500),
}
"""USD/9 a token: input, output, input from the cache."""

MODELS = tuple(PRICES)
ERROR_SHARE = 0.01
RETRY_SHARE = 0.03


class App(NamedTuple):
    """One tenant's application and what its calls look like."""

    tenant: str
    keys: int
    users: int
    features: tuple[tuple[str, str], ...]
    """(feature, model); a key belongs to one feature."""


APPS = (
    App("northwind", 8, 60, (("chat", "gpt-4o"), ("search", "gpt-4o-mini"), ("mail", "gpt-4o"))),
    App("initech", 4, 40, (("inline", "gpt-4.1-mini"), ("block", "gpt-4.1-mini"))),
    App("skyward", 3, 30, (("booking", "gpt-4.1"),)),
)
FEATURES = tuple(name for app in APPS for name, _ in app.features)


class Calls(NamedTuple):
    """Columns of one hour's calls of one app; a call is a row."""

    second: Floats
    key: Floats
    user: Floats
    feature: Floats
    """Place in the app's features."""
    model: Floats
    """Place in MODELS."""
    tokens_input: Floats
    tokens_output: Floats
    cache_reads: Floats
    is_error: Floats
    is_retry: Floats

    def cost(self) -> Floats:
        """USD/9 of each call."""
        prices = np.array(list(PRICES.values()))[self.model]
        fresh = self.tokens_input - self.cache_reads
        total: Floats = (
            fresh * prices[:, 0]
            + self.tokens_output * prices[:, 1]
            + self.cache_reads * prices[:, 2]
        )
        return total

    def take(self, rows: Floats) -> Calls:
        """These rows."""
        return Calls(*(column[rows] for column in self))

    def plus(self, other: Calls) -> Calls:
        """Both."""
        return Calls(*(np.concatenate(pair) for pair in zip(self, other, strict=True)))


Incident = Callable[[App, int, Calls, np.random.Generator], Calls]
"""(app, seconds since MONDAY at which the hour begins, its calls, randomness) -> its calls."""


class Recorded(NamedTuple):
    """What was recorded of one app: calls a minute, and rows of tokens to draw from."""

    counts: Floats
    tokens_input: Floats
    tokens_output: Floats
    cache_reads: Floats


@cache
def recorded() -> Mapping[str, Recorded]:
    """The real input, by tenant."""
    found = {}
    for tenant, name in (
        ("northwind", "azure_llm_inference_conv_2023.csv"),
        ("initech", "azure_llm_inference_code_2023.csv"),
    ):
        rows = np.array(_azure_rows(name, MONDAY), dtype=np.int64)
        minutes = (rows[:, 0] - rows[0, 0]) // (60 * SECOND)
        counts = np.bincount(minutes)[:-1]
        found[tenant] = Recorded(counts, rows[:, 1], rows[:, 2], np.zeros_like(rows[:, 1]))
    found["skyward"] = _agents()
    return found


def _agents() -> Recorded:
    """The agents' calls: tokens are characters / 4; a turn finds the one before in the cache."""
    rows = []
    for run in airline_runs():
        context = cached = 0
        for turn in run["traj"]:
            size = len(json.dumps(turn, ensure_ascii=False))
            if turn["role"] == "assistant":
                prefix = cached // 4 // 128 * 128
                rows.append((context // 4, size // 4, prefix if prefix >= 1024 else 0))
                cached = context
            context += size
    columns = np.array(rows, dtype=np.int64)
    return Recorded(np.full(60, 120), columns[:, 0], columns[:, 1], columns[:, 2])


@cache
def tool_results() -> tuple[tuple[str, ...], Floats, Floats]:
    """Tools, and of each recorded result its tool and whether it was an error."""
    names, tools, errors = [], [], []
    for run in airline_runs():
        for turn in run["traj"]:
            if turn["role"] == "tool":
                names.append(turn["name"])
                errors.append(str(turn["content"]).startswith("Error"))
    known = tuple(sorted(set(names)))
    tools = [known.index(name) for name in names]
    return known, np.array(tools), np.array(errors)


def season(hour: int) -> float:
    """The share of the recorded traffic in an hour of the week: nights and weekends are calm."""
    day, of_day = hour // 24 % 7, hour % 24
    wave = 0.55 - 0.4 * np.cos(2 * np.pi * (of_day - 3) / 24)
    return float(wave * (0.5 if day >= 5 else 1.0))


def hour_calls(app: App, hour: int, seed: int) -> Calls:
    """One hour of one app; `hour` counts from MONDAY."""
    rng = np.random.default_rng([seed, hour + 9999, APPS.index(app)])
    real = recorded()[app.tenant]
    at = rng.integers(len(real.counts))
    counts = rng.binomial(np.resize(np.roll(real.counts, -at), 60), season(hour))
    total = int(counts.sum())
    minute = np.repeat(np.arange(len(counts)), counts)
    rows = rng.integers(len(real.tokens_input), size=total)
    key = rng.choice(app.keys, size=total, p=_zipf(app.keys))
    feature = key % len(app.features)
    models = np.array([MODELS.index(model) for _, model in app.features])
    return Calls(
        minute * 60 + rng.integers(60, size=total),
        key,
        rng.choice(app.users, size=total, p=_zipf(app.users)),
        feature,
        models[feature],
        real.tokens_input[rows],
        real.tokens_output[rows],
        real.cache_reads[rows],
        rng.random(total) < ERROR_SHARE,
        rng.random(total) < RETRY_SHARE,
    )


def _zipf(count: int) -> Floats:
    weights = 1 / np.arange(1, count + 1)
    shares: Floats = weights / weights.sum()
    return shares


class Traffic:
    """The world's traffic: `changes` of any stretch, in slots of seconds."""

    def __init__(self, seed: int, incident: Incident | None = None) -> None:
        self._seed = seed
        self._incident = incident

    def slots(self, hour: int, seconds: int) -> Iterator[tuple[int, list[Change]]]:
        """(end of the slot in micros, what came in it) for each slot of an hour."""
        found: list[list[Change]] = [[] for _ in range(3600 // seconds)]
        for app in APPS:
            calls = self.calls(app, hour)
            for slot, change in _fold(app, calls, MONDAY // HOUR + hour, seconds):
                found[slot].append(change)
        for slot, change in self._tools(hour, seconds):
            found[slot].append(change)
        for slot, changes in enumerate(found):
            yield MONDAY + hour * HOUR + (slot + 1) * seconds * SECOND, changes

    def calls(self, app: App, hour: int) -> Calls:
        """One hour of one app, with the incident."""
        calls = hour_calls(app, hour, self._seed)
        if self._incident is not None:
            rng = np.random.default_rng([self._seed, hour + 9999, 99])
            calls = self._incident(app, hour * 3600, calls, rng)
        return calls

    def hours(self, start: int, end: int) -> Iterator[tuple[SeriesKey, int, Point]]:
        """Whole hours [start, end), as the past is read."""
        for hour in range(start, end):
            for _, changes in self.slots(hour, 3600):
                for key, _, point in changes:
                    yield key, MONDAY // HOUR + hour, point

    def _tools(self, hour: int, seconds: int) -> Iterator[tuple[int, Change]]:
        names, tools, errors = tool_results()
        rng = np.random.default_rng([self._seed, hour + 9999, 77])
        total = rng.poisson(60 * 60 * season(hour))
        rows = rng.integers(len(tools), size=total)
        second = rng.integers(3600, size=total)
        columns = [np.ones(total), errors[rows]]
        base = (MONDAY // HOUR + hour) * 60
        for place, slot, minute, sums in _grouped(tools[rows], second, seconds, columns):
            point = Point(tool_calls=sums[0], errors=sums[1])
            yield slot, Change(SeriesKey("skyward", "tool", names[place]), base + minute, point)


def _fold(app: App, calls: Calls, hour: int, seconds: int) -> Iterator[tuple[int, Change]]:
    cost = calls.cost()
    columns = [
        cost,
        np.ones(len(cost)),
        calls.is_error,
        calls.is_retry,
        cost * calls.is_retry,
        calls.tokens_input,
        calls.tokens_output,
        calls.cache_reads,
    ]
    names: dict[str, tuple[Floats, Callable[[int], str]]] = {
        "tenant": (np.zeros_like(calls.key), lambda _: app.tenant),
        "key": (calls.key, lambda place: f"{app.tenant}-key-{place}"),
        "user": (calls.user, lambda place: f"{app.tenant}-user-{place}"),
        "feature": (calls.feature, lambda place: app.features[place][0]),
        "model": (calls.model, lambda place: MODELS[place]),
    }
    for dimension, (codes, name) in names.items():
        for place, slot, minute, sums in _grouped(codes, calls.second, seconds, columns):
            spend, count, errors, retries, wasted, inputs, outputs, cached = sums
            point = Point(spend, count, 0, errors, retries, wasted, inputs, outputs, cached)
            key = SeriesKey(app.tenant, dimension, name(place))
            yield slot, Change(key, hour * 60 + minute, point)


def _grouped(
    codes: Floats, second: Floats, seconds: int, columns: list[Floats]
) -> Iterator[tuple[int, int, int, list[int]]]:
    """(code, slot, minute, sums) of each code in each slot."""
    slots = second // seconds
    joint, places = np.unique(codes * 3600 + slots, return_inverse=True)
    sums = [np.bincount(places, weights=column, minlength=len(joint)) for column in columns]
    for place, one in enumerate(joint.tolist()):
        code, slot = divmod(one, 3600)
        yield code, slot, slot * seconds // 60, [round(column[place]) for column in sums]
