"""A follower's loop: when its next step begins, seen by how many steps it made."""

from __future__ import annotations

import threading

from tallystick.workers.loop import FollowerLoop, Progress

_SECONDS_MAX = 30.0
_LONG = 3600.0
"""Longer than any test waits: what happens sooner did not wait for it."""


class Scripted:
    """A follower that answers from a list, then finds nothing; tells when it stepped."""

    name = "scripted"

    def __init__(self, *answers: bool | Progress) -> None:
        self._answers = list(answers)
        self._stepped = threading.Semaphore(0)
        self.steps = 0

    def step(self) -> bool | Progress:
        self.steps += 1
        self._stepped.release()
        return self._answers.pop(0) if self._answers else Progress.NOTHING

    def recover(self) -> None:
        raise AssertionError("no step fails")

    def wait_for_step(self) -> None:
        assert self._stepped.acquire(timeout=_SECONDS_MAX)


def test_full_steps_go_on_at_once_and_others_wait_for_more() -> None:
    follower = Scripted(Progress.FULL, Progress.FULL, Progress.SOME, Progress.SOME)
    loop = FollowerLoop(follower, idle_seconds=_LONG, every_seconds=_LONG)
    loop.start()
    for _ in range(3):
        follower.wait_for_step()
    loop.stop()
    assert follower.steps == 3


def test_without_a_pace_every_step_that_did_something_goes_on_at_once() -> None:
    follower = Scripted(True, Progress.SOME, True)
    loop = FollowerLoop(follower, idle_seconds=_LONG)
    loop.start()
    for _ in range(4):
        follower.wait_for_step()
    loop.stop()
    assert follower.steps == 4


def test_a_step_wakes_the_loop_that_follows_it() -> None:
    second = Scripted()
    following = FollowerLoop(second, idle_seconds=_LONG)
    following.start()
    second.wait_for_step()
    first = Scripted(Progress.SOME)
    leading = FollowerLoop(first, idle_seconds=_LONG, wakes=following)
    leading.start()
    second.wait_for_step()
    leading.stop()
    following.stop()
    assert second.steps == 2


def test_a_loop_that_rests_stops_at_once() -> None:
    for answer in (Progress.NOTHING, Progress.SOME):
        follower = Scripted(answer)
        loop = FollowerLoop(follower, idle_seconds=_LONG, every_seconds=_LONG)
        loop.start()
        follower.wait_for_step()
        loop.stop()
        assert not loop.is_alive()
