"""Readers for tests: keep positions as a follower would, and remember what came.

Run as a program it is a reader of its own process, to be killed: it prints one JSON line for
each thing that happens to it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tallystick.plumbing.log.kafka import KafkaMessage, KafkaOptions, KafkaReader

IMPATIENT = {"socket.timeout.ms": "4000", "request.timeout.ms": "4000"}
"""Properties of a writer that gives a hanging broker up within a test's patience."""

QUICK = {"session.timeout.ms": "5000", "heartbeat.interval.ms": "500", "socket.timeout.ms": "4000"}
"""Properties of a reader whose death is noticed within a test's patience."""


class Follower:
    """A reader with its positions and results in one place, here memory."""

    def __init__(
        self,
        options: KafkaOptions,
        *,
        group: str = "",
        instance_id: str = "one",
        positions: Mapping[int, int] | None = None,
    ) -> None:
        self.positions = dict(positions or {})
        self.messages: dict[int, list[KafkaMessage]] = {}
        self.assigned: set[int] = set()
        self.changes = 0
        self._open = partial(
            KafkaReader,
            options,
            group=group or options.topic,
            instance_id=instance_id,
            on_assigned=self._arrive,
            on_revoked=self._leave,
        )
        self.reader = self._open()

    def begin_again(self) -> None:
        """Join anew, from the same positions, as a sink does after a failure."""
        self.reader.close()
        self.assigned = set()
        self.reader = self._open()

    def step(self, seconds: float = 0.2) -> int:
        """Read once; return how many messages came."""
        found = self.reader.read(10_000, seconds)
        for partition, batch in found.items():
            assert partition in self.assigned
            offsets = [message.offset for message in batch]
            assert offsets == sorted(set(offsets))
            assert offsets[0] >= self.positions.get(partition, 0)
            self.messages.setdefault(partition, []).extend(batch)
            self.positions[partition] = offsets[-1] + 1
        return sum(len(batch) for batch in found.values())

    def step_until(self, reached: Callable[[], bool], seconds: float = 30) -> None:
        """Read until something holds."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, (self.assigned, self.positions)
            self.step()

    def catch_up(self) -> list[KafkaMessage]:
        """Read up to the present ends of all partitions; return all that ever came."""
        heads = self.reader.heads()
        self.step_until(
            lambda: all(self.positions.get(one, 0) >= head for one, head in heads.items())
        )
        return [message for batch in self.messages.values() for message in batch]

    def close(self) -> None:
        self.reader.close()

    def _arrive(self, partitions: Sequence[int]) -> Mapping[int, int]:
        self.changes += 1
        self.assigned.update(partitions)
        return {partition: self.positions.get(partition, 0) for partition in partitions}

    def _leave(self, partitions: Sequence[int]) -> None:
        self.changes += 1
        self.assigned.difference_update(partitions)


def main(brokers: str, topic: str, instance_id: str) -> None:
    """Follow until killed."""
    options = KafkaOptions(brokers, topic=topic, properties=QUICK)
    follower = Follower(options, instance_id=instance_id)
    told: list[int] | None = None
    while True:
        follower.step()
        if told != (told := sorted(follower.assigned)):
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
