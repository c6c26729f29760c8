"""What a record of the spool says, and what becomes of it. Pure.

A record is a path, a line break, and the JSON body that is posted there; so many events can
be joined to one request without being decoded. A path that begins with `undo:` names an
authorization whose answer was lost: it is asked for again under its own key, which is
harmless, and then cancelled.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

EVENTS_PATH = "/v1/events"
AUTHORIZATIONS_PATH = "/v1/authorizations"
RUN_BUDGETS_PATH = "/v1/run-budgets"
UNDO_PATH = "undo:" + AUTHORIZATIONS_PATH


class Post(NamedTuple):
    """One request that is owed to the server."""

    path: str
    body: bytes


class Fate(StrEnum):
    """What an answer means for the record that was sent."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    """The server will never take it."""
    SPLIT = "split"
    """Too much in one request, or one record spoils the others: send fewer."""
    KEEP = "keep"
    """Try again later: a queue is full, or the key is not valid (an operator can mend that)."""


def encode_record(path: str, content: object) -> bytes:
    """Write a record; `content` is what JSON can say."""
    return path.encode() + b"\n" + msgspec.json.encode(content)


def decode_record(record: bytes) -> Post:
    """Read a record.

    >>> decode_record(encode_record("/v1/events", {"event_id": "e"}))
    Post(path='/v1/events', body=b'{"event_id":"e"}')
    """
    path, _, body = record.partition(b"\n")
    return Post(path.decode("ascii", "replace"), body)


def first_batch(posts: list[Post], bytes_max: int) -> list[Post]:
    """As many events from the start as fit one request; anything else goes alone."""
    if posts[0].path != EVENTS_PATH:
        return posts[:1]
    size, batch = 0, list[Post]()
    for post in posts:
        size += len(post.body) + 1
        if post.path != EVENTS_PATH or (batch and size > bytes_max):
            break
        batch.append(post)
    return batch


def body_of(batch: list[Post]) -> bytes:
    """The body of the request that sends a batch."""
    if batch[0].path != EVENTS_PATH:
        return batch[0].body
    return b"[" + b",".join(post.body for post in batch) + b"]"


def fate_of(status: int, batch_size: int) -> Fate:
    """Read a status; an answer of 408, 425 or 5xx never comes here (it is no answer).

    >>> fate_of(413, 2), fate_of(413, 1)
    (<Fate.SPLIT: 'split'>, <Fate.REFUSED: 'refused'>)
    """
    if status < 300:
        return Fate.DELIVERED
    if status in (401, 403, 429):
        return Fate.KEEP
    return Fate.SPLIT if batch_size > 1 else Fate.REFUSED
