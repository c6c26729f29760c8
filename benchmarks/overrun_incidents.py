"""Incidents that the back-test injects into real traffic, each with where and when it begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.overrun_traffic import MODELS, App, Calls, Floats, Incident


class Injected(NamedTuple):
    """What is injected and what should be noticed."""

    name: str
    tenant: str
    kinds: tuple[str, ...]
    """Kinds of overrun that count as noticing it."""
    lasts_minutes: int
    make: type[_Window]
    goal_minutes: float | None
    """Within how many minutes it should be noticed; None: no promise."""


class _Window:
    """An incident in [start, end) seconds since the Monday."""

    tenant = ""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end

    def __call__(self, app: App, began: int, calls: Calls, rng: np.random.Generator) -> Calls:
        """Change what falls into the window."""
        if app.tenant != self.tenant or began + 3600 <= self.start or began >= self.end:
            return calls
        inside = (calls.second + began >= self.start) & (calls.second + began < self.end)
        return self.change(began, calls, inside, rng)

    def change(self, began: int, calls: Calls, inside: Floats, rng: np.random.Generator) -> Calls:
        """Change the calls inside."""
        raise NotImplementedError


class RunawayLoop(_Window):
    """One key calls in a loop, three times a second, with what a dear call of its own carries."""

    tenant = "northwind"
    key = 3

    def change(self, began: int, calls: Calls, inside: Floats, rng: np.random.Generator) -> Calls:
        """Add the loop's calls."""
        seconds = np.arange(max(self.start, began), min(self.end, began + 3600)).repeat(3) - began
        own = np.flatnonzero((calls.key == self.key) & (calls.model == MODELS.index("gpt-4o")))
        own = own if len(own) else np.flatnonzero(calls.key == 0)
        dear = own[np.argsort(calls.tokens_input[own])[-max(len(own) // 4, 1) :]]
        extra = calls.take(rng.choice(dear, size=len(seconds)))
        key = np.full(len(seconds), self.key)
        return calls.plus(extra._replace(second=seconds, key=key, user=np.full(len(seconds), 7)))


class DearModel(_Window):
    """A feature is switched to a model that costs six times as much."""

    tenant = "northwind"

    def change(self, began: int, calls: Calls, inside: Floats, rng: np.random.Generator) -> Calls:
        """Swap the model of the feature's calls."""
        dear = MODELS.index("claude-opus-4-1")
        return calls._replace(model=np.where(inside & (calls.feature == 0), dear, calls.model))


class RetryStorm(_Window):
    """Every call of a tenant is tried three times."""

    tenant = "northwind"

    def change(self, began: int, calls: Calls, inside: Floats, rng: np.random.Generator) -> Calls:
        """Repeat the calls inside twice."""
        again = calls.take(np.flatnonzero(inside).repeat(2))
        return calls.plus(again._replace(is_retry=np.ones(len(again.second), dtype=bool)))


class ErrorStorm(_Window):
    """Half of a model's calls fail."""

    tenant = "initech"

    def change(self, began: int, calls: Calls, inside: Floats, rng: np.random.Generator) -> Calls:
        """Let them fail."""
        fails = inside & (rng.random(len(calls.second)) < 0.5)
        return calls._replace(is_error=calls.is_error | fails)


class SlowLeak(_Window):
    """A context that is never cut: a feature's input grows by 8% of itself an hour."""

    tenant = "northwind"

    def change(self, began: int, calls: Calls, inside: Floats, rng: np.random.Generator) -> Calls:
        """Grow the input."""
        hours = np.maximum(calls.second + began - self.start, 0) / 3600
        grown = np.where(inside & (calls.feature == 0), 1.08**hours, 1.0)
        return calls._replace(tokens_input=(calls.tokens_input * grown).astype(np.int64))


class CacheLost(_Window):
    """A changed prompt prefix: nothing comes from the prompt cache any more."""

    tenant = "skyward"

    def change(self, began: int, calls: Calls, inside: Floats, rng: np.random.Generator) -> Calls:
        """Forget the cache."""
        return calls._replace(cache_reads=np.where(inside, 0, calls.cache_reads))


class Launch(_Window):
    """Three times the usual calls of a feature: announced or not, it is no incident."""

    tenant = "northwind"

    def change(self, began: int, calls: Calls, inside: Floats, rng: np.random.Generator) -> Calls:
        """Repeat the feature's calls twice, a few seconds away."""
        again = calls.take(np.flatnonzero(inside & (calls.feature == 0)).repeat(2))
        moved = (again.second + rng.integers(30, size=len(again.second))) % 3600
        return calls.plus(again._replace(second=moved))


class Both:
    """Two incidents at once."""

    def __init__(self, first: Incident, second: Incident) -> None:
        self._first, self._second = first, second

    def __call__(self, app: App, began: int, calls: Calls, rng: np.random.Generator) -> Calls:
        """Apply one, then the other."""
        return self._second(app, began, self._first(app, began, calls, rng), rng)


_MONEY = ("burn_rate", "outlier")

INCIDENTS = (
    Injected("runaway loop of one key", "northwind", _MONEY, 30, RunawayLoop, 2),
    Injected("dear model swapped in", "northwind", _MONEY, 30, DearModel, 2),
    Injected("retry storm", "northwind", ("retry_storm",), 30, RetryStorm, 2),
    Injected("error storm", "initech", ("error_storm",), 30, ErrorStorm, 2),
    Injected("prompt cache lost", "skyward", _MONEY, 60, CacheLost, 5),
    Injected("slow leak, 8% an hour", "northwind", _MONEY, 24 * 60, SlowLeak, None),
)
