"""What must never be found in a data folder: the personal data of the airline runs.

`personal_strings` reads the shipped trace and lists every person's strings and the
distinctive sentences of the conversations; `scan_folder` searches every stored byte for
them, also inside the compressed blocks that the stores write (`stored_bytes`).

A needle has at least six characters: a shorter one (a city, the last digits of a card)
would turn up in random bytes. Two names next to each other are looked for as text and as
JSON, plain or quoted inside other JSON.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from tests.acceptance.byte_search import ANCHOR_BYTES, ByteSearch
from tests.acceptance.stored_bytes import folder_blobs, readable_views

_KINDS = {
    "user_id": "user id",
    "email": "email",
    "address1": "address",
    "address2": "address",
    "dob": "date of birth",
    "payment_id": "payment id",
    "reservation_id": "reservation id",
}
_IDS_IN_TEXT = {
    "email": re.compile(r"[\w.+-]+@example\.com"),
    "payment id": re.compile(r"(?:credit_card|gift_card|certificate)_\d{4,}"),
    "user id": re.compile(r"\b[a-z]+_[a-z]+_\d{4}\b"),
}
_SENTENCE_END = re.compile(r"[.!?\n]")
_SENTENCE = re.compile(r"[ #-\[\]-~]{32,}")  # printable, and the same inside JSON
_SENTENCE_CHARACTERS = 48
_NAME_JOINTS = (
    " ",
    '", "last_name": "',
    '","last_name":"',
    '\\", \\"last_name\\": \\"',
    '\\",\\"last_name\\":\\"',
)


class Needle(NamedTuple):
    """A string that may not be stored, and what it is."""

    kind: str
    text: str


class Hit(NamedTuple):
    """Where a needle was found: the blob's name, the offset in it, the needle."""

    place: str
    offset: int
    needle: Needle


def personal_strings() -> list[Needle]:
    """Every personal string and distinctive sentence of the airline runs, sorted."""
    needles: set[Needle] = set()
    for run in _airline_runs():
        for value in _documents(run):
            needles.update(_needles_of(value))
    return sorted(needle for needle in needles if len(needle.text) >= ANCHOR_BYTES)


def scan_folder(
    folder: Path, needles: Iterable[Needle], extra: Iterable[tuple[str, bytes]] = ()
) -> list[Hit]:
    """Search every file of `folder`, and `extra` blobs (name, bytes), for the needles."""
    hits = list(scan_blobs(folder_blobs(folder), needles))
    return hits + list(scan_blobs(extra, needles))


def scan_blobs(blobs: Iterable[tuple[str, bytes]], needles: Iterable[Needle]) -> Iterator[Hit]:
    """Search blobs as they are and what can be decompressed inside them."""
    by_text = {needle.text.encode(): needle for needle in needles}
    search = ByteSearch(by_text)
    for name, blob in blobs:
        for view, content in readable_views(blob):
            for offset, found in search.find(content):
                yield Hit(f"{name}{view}", offset, by_text[found])


def _airline_runs() -> list[dict[str, Any]]:
    trace = files("tallystick.demo").joinpath("traces", "tau_bench_gpt4o_airline.json.gz")
    runs: list[dict[str, Any]] = json.loads(gzip.decompress(trace.read_bytes()))
    return runs


def _documents(run: dict[str, Any]) -> Iterator[Any]:
    """The task, every text, and every text that is itself JSON, read."""
    yield run["info"]["task"]
    for message in run["traj"]:
        texts = [message["content"] or ""]
        texts += [call["function"]["arguments"] for call in message.get("tool_calls") or []]
        for text in texts:
            yield text
            try:
                yield json.loads(text)
            except ValueError:
                continue


def _needles_of(value: Any) -> Iterator[Needle]:
    if isinstance(value, str):
        yield from _needles_in_text(value)
    elif isinstance(value, list):
        for item in value:
            yield from _needles_of(item)
    elif isinstance(value, dict):
        if "first_name" in value and "last_name" in value:
            for joint in _NAME_JOINTS:
                yield Needle("name", f"{value['first_name']}{joint}{value['last_name']}")
        for key, item in value.items():
            if key in _KINDS and isinstance(item, str):
                yield Needle(_KINDS[key], item)
            yield from _needles_of(item)


def _needles_in_text(text: str) -> Iterator[Needle]:
    for kind, pattern in _IDS_IN_TEXT.items():
        for found in pattern.findall(text):
            yield Needle(kind, found)
    for sentence in _SENTENCE_END.split(text):
        if found := _SENTENCE.search(sentence.strip()):
            yield Needle("message", found.group()[:_SENTENCE_CHARACTERS].strip())
