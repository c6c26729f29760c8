"""The limiter against a naive reference in fractions, and fairness with seeds."""

from __future__ import annotations

import asyncio
import random
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.access import Principal
from tallystick.clock import SECOND, FixedClock
from tallystick.enforcement.rates import UNLIMITED, Decision, RateLimit, RateLimiter

START = 1_764_000_000_000_000


def caller(key: str, *, tier: str = "", service_id: str = "") -> Principal:
    return Principal(
        f"key:{key}", frozenset(), frozenset(), "acme", key, tier=tier, service_id=service_id
    )


def limit(kind: str, name: str = "", **more: object) -> RateLimit:
    base: dict[str, object] = {
        "limit_id": f"{kind}-{name}-{more.get('asset', 'requests')}",
        "tenant_id": "" if kind == "global" else "acme",
        "asset": "requests",
        "per_minute": 60,
        "burst": 10,
        **more,
    }
    return RateLimit(kind=kind, name=name, **base)  # type: ignore[arg-type]


class Harness:
    def __init__(self, *limits: RateLimit) -> None:
        self.clock = FixedClock(START)
        self.limiter = RateLimiter(self.clock)
        self.limiter.configure(limits)

    def check(self, principal: Principal, requests: int = 1, tokens: int = 0) -> Decision:
        check = self.limiter.check(principal, route="/v1/x", requests=requests, tokens=tokens)
        return asyncio.run(check)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 100_000),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 60)), max_size=30),
)
def test_a_bucket_is_what_a_naive_one_is(
    per_minute: int, burst: int, asks: list[tuple[int, int]]
) -> None:
    harness = Harness(limit("key", "k1", per_minute=per_minute, burst=burst))
    level = Fraction(burst)
    for pause, units in asks:
        harness.clock.micros += pause
        level = min(Fraction(burst), level + Fraction(pause * per_minute, 60 * SECOND))
        is_allowed = level >= min(units, burst)
        decision = harness.check(caller("k1"), requests=units)
        assert decision.allowed == is_allowed
        if is_allowed:
            level -= units
            assert decision.remaining == max(0, int(level))
        else:
            missing = (min(units, burst) - level) * 60 / per_minute
            assert decision.retry_after == max(1, -(-missing.numerator // missing.denominator))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, 3)), max_size=60))
def test_no_window_grants_more_than_burst_and_refill(asks: list[tuple[int, int]]) -> None:
    harness = Harness(limit("global", per_minute=120, burst=6), limit("tenant", per_minute=90))
    granted: list[int] = []
    for pause, key in asks:
        harness.clock.micros += pause
        if harness.check(caller(f"k{key}")).allowed:
            granted.append(harness.clock.micros)
    for index, start in enumerate(granted):
        for count, end in enumerate(granted[index:], 1):
            assert count <= 6 + Fraction((end - start) * 120, 60 * SECOND)


def test_all_limits_must_have_room_or_nothing_is_taken() -> None:
    harness = Harness(
        limit("key", "k1", burst=5), limit("key", "k1", asset="tokens", per_minute=600, burst=100)
    )
    assert harness.check(caller("k1"), tokens=90).allowed
    refused = harness.check(caller("k1"), tokens=20)
    assert (refused.allowed, refused.decided_by) == (False, "rate_limit:key-k1-tokens")
    assert refused.retry_after == 1
    left = [harness.check(caller("k1")).allowed for _ in range(5)]
    assert left == [True] * 4 + [False]  # the refused one took no request


def test_tokens_are_corrected_to_what_was_used() -> None:
    harness = Harness(limit("key", "k1", asset="tokens", per_minute=60, burst=100))
    assert harness.check(caller("k1"), tokens=100).allowed
    asyncio.run(harness.limiter.correct(caller("k1"), tokens=30 - 100))
    assert harness.check(caller("k1"), tokens=70).allowed
    asyncio.run(harness.limiter.correct(caller("k1"), tokens=50))
    harness.clock.micros += 50 * SECOND
    assert not harness.check(caller("k1"), tokens=1).allowed
    harness.clock.micros += SECOND
    assert harness.check(caller("k1"), tokens=1).allowed


def test_a_request_above_the_burst_waits_for_a_full_bucket() -> None:
    harness = Harness(limit("key", "k1", asset="tokens", per_minute=60, burst=10))
    assert harness.check(caller("k1"), tokens=25).allowed
    harness.clock.micros += 24 * SECOND
    assert not harness.check(caller("k1"), tokens=25).allowed
    harness.clock.micros += SECOND
    assert harness.check(caller("k1"), tokens=10).allowed


def test_each_key_of_a_tier_has_its_own_and_a_service_shares_one() -> None:
    harness = Harness(limit("tier", "free", burst=1), limit("service", "batch", burst=1))
    assert [harness.check(caller(key, tier="free")).allowed for key in ("a", "b", "a")] == [
        True, True, False
    ]  # fmt: skip
    assert [harness.check(caller(key, service_id="batch")).allowed for key in ("c", "d")] == [
        True,
        False,
    ]
    stranger = msgspec.structs.replace(caller("a", service_id="batch"), tenant_id="other")
    assert harness.check(stranger) is UNLIMITED


def test_limits_can_always_be_undone_and_keep_their_level_when_others_change() -> None:
    harness = Harness(limit("global", burst=1, per_minute=1))
    assert harness.check(caller("k1")).allowed
    harness.limiter.configure([limit("global", burst=1, per_minute=1), limit("key", "k9")])
    assert not harness.check(caller("k1")).allowed
    undone = harness.limiter.check(caller("k1"), route="/v1/rate-limits")
    assert asyncio.run(undone).allowed


@pytest.mark.parametrize("seed", range(5))
def test_one_noisy_key_does_not_starve_the_others(seed: int) -> None:
    rng = random.Random(seed)
    harness = Harness(limit("global", per_minute=600, burst=60))
    asked = dict.fromkeys(["noisy", *(f"quiet{n}" for n in range(4))], 0)
    granted = dict.fromkeys(asked, 0)
    seconds = 60
    for _ in range(seconds * 20):
        harness.clock.micros += SECOND // 20
        wanting = ["noisy"] * 10 + [key for key in asked if key != "noisy" and rng.random() < 0.05]
        rng.shuffle(wanting)
        for key in wanting:
            asked[key] += 1
            granted[key] += harness.check(caller(key)).allowed
    for key in asked:
        if key != "noisy":  # one a second each, well under a fair share of two a second
            assert granted[key] >= 0.95 * asked[key], (key, granted, asked)
    total = sum(granted.values())
    assert total <= 60 + 10 * seconds
    assert total >= 10 * seconds * 0.9  # what the quiet leave is not wasted


def test_shares_follow_weights_when_everyone_wants_more() -> None:
    harness = Harness(
        limit("global", per_minute=600, burst=60),
        limit("key", "gold", per_minute=10**6, burst=10**6, weight=3),
    )
    granted = {"gold": 0, "plain": 0}
    for step in range(2400):
        harness.clock.micros += SECOND // 20
        for key in ("gold", "plain") if step % 2 else ("plain", "gold"):
            for _ in range(3):
                granted[key] += harness.check(caller(key)).allowed
    assert 2.4 <= granted["gold"] / granted["plain"] <= 3.6


def test_callers_whose_names_run_together_have_buckets_of_their_own() -> None:
    harness = Harness(limit("tier", "gold", tenant_id="", burst=1))
    for tenant_id, subject in (("acme", "b/c"), ("acme/b", "c"), ("acme/b/c", "")):
        principal = Principal(subject, frozenset(), frozenset(), tenant_id, tier="gold")
        assert harness.check(principal).allowed
        assert not harness.check(principal).allowed
