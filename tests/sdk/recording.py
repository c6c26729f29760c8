"""A client whose events a test can read: it keeps them in its spool, the server being away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from tallystick.sdk import Tallystick
from tallystick.sdk.spool.records import decode_record

NOWHERE = "http://127.0.0.1:9"
"""The discard port, where nobody listens."""


@contextmanager
def recording(**settings: Any) -> Iterator[tuple[Tallystick, list[dict[str, Any]]]]:
    """A client and, once the block is over, what it recorded."""
    client = Tallystick(NOWHERE, "none", **settings)
    client.sender.close(0)  # nothing is sent, so all is there to be read
    events: list[dict[str, Any]] = []
    try:
        yield client, events
    finally:
        records = client._spool.read(100_000)
        events += [msgspec.json.decode(decode_record(record).body) for record in records]
        client._spool.advance(len(events))
        client.close(0)


def shapes(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Type and run of each event."""
    return [(event["event_type"], event.get("run_id", "")) for event in events]
