"""Seeded worlds: whatever fails, in whatever order, history and reference agree.

TALLYSTICK_SEEDS=5000 runs more of them (`make soak`). A seed that failed once is kept below.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from tallystick.plumbing.postgres import open_pool
from tests.simulation.world import World

SEEDS = int(os.environ.get("TALLYSTICK_SEEDS", "200"))
FIRST = int(os.environ.get("TALLYSTICK_FIRST_SEED", "0"))
KEPT: tuple[int, ...] = (82, 137, 695, 806)
"""Seeds that failed once: the order of two holds, and of what a refund gives back; a clock that
steps back behind a swept lot (the reference took it back); a hold that was extended, ran out and
was captured late (its budgets counted what it was made with)."""

STEPS = 40


def test_every_seed_agrees_with_the_reference(postgres_url: str) -> None:
    pool = open_pool(postgres_url, connections_max=2)
    faults = 0
    try:
        for seed in sorted({*KEPT, *range(FIRST, FIRST + SEEDS)}):
            random = Random(seed)
            world = World(pool, random, f"s{seed}", chance=0.15)
            try:
                for _ in range(STEPS):
                    world.step()
                    world.check()
                world.finish()
                if seed % 20 == 0:
                    assert world.ledger.verify() == []
            except Exception as error:
                pytest.fail(f"seed {seed}: {type(error).__name__}: {error}")
            faults += world.faulty.faults
        assert world.ledger.verify() == []
    finally:
        pool.close()
    assert faults > SEEDS, "the world was too kind"
