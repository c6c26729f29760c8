"""The scan finds what it must find, in every form that the stores write."""

from __future__ import annotations

import json
import random
import struct
from collections import Counter
from pathlib import Path

import lz4.block  # type: ignore[import-untyped]
import pytest
import zstandard

from tests.acceptance.byte_search import ByteSearch
from tests.acceptance.personal_data import Needle, personal_strings, scan_blobs, scan_folder

_PERSON = Needle("name", "Mia Li")
_EMAIL = Needle("email", "mia.li3818@example.com")
_NOISE = random.Random(1).randbytes(200_000)


@pytest.fixture(scope="module")
def needles() -> list[Needle]:
    return personal_strings()


def _clickhouse_block(method: int, packed: bytes, plain: bytes) -> bytes:
    return bytes(16) + struct.pack("<BII", method, len(packed) + 9, len(plain)) + packed


def test_every_kind_of_personal_string_is_listed(needles: list[Needle]) -> None:
    kinds = Counter(needle.kind for needle in needles)
    assert kinds["email"] == 37
    assert kinds["date of birth"] == 132
    assert kinds["payment id"] == 122
    assert kinds["reservation id"] == 100
    assert kinds["message"] > 5000
    assert {
        _PERSON,
        _EMAIL,
        Needle("user id", "mia_li_3668"),
        Needle("address", "975 Sunset Drive"),
        Needle("date of birth", "1990-04-05"),
        Needle("payment id", "certificate_7504069"),
        Needle("reservation id", "Z7GOZK"),
    } <= set(needles)


def test_name_is_found_in_json_and_in_json_inside_json(needles: list[Needle]) -> None:
    person = {"first_name": "Mia", "last_name": "Li"}
    for text in (
        json.dumps(person),
        json.dumps(person, separators=(",", ":")),
        json.dumps({"arguments": json.dumps(person)}),
    ):
        assert [hit.needle.kind for hit in scan_blobs([("x", text.encode())], needles)] == ["name"]


def test_scan_of_a_folder_names_file_and_offset(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "1259").write_bytes(_NOISE[:700] + b"Mia Li" + _NOISE)
    (tmp_path / "clean").write_bytes(_NOISE)
    (hit,) = scan_folder(tmp_path, [_PERSON, _EMAIL])
    assert (hit.place, hit.offset, hit.needle) == ("base/1259", 700, _PERSON)


def test_extra_blobs_are_searched_too(tmp_path: Path) -> None:
    (hit,) = scan_folder(tmp_path, [_PERSON], [("table log.batch", b"by Mia Li.")])
    assert (hit.place, hit.offset) == ("table log.batch", 3)


def test_zstd_is_opened_wherever_it_starts_and_even_when_cut_off() -> None:
    plain = b'{"note":"Mia Li"}' + _NOISE
    frame = zstandard.ZstdCompressor(level=1).compress(plain + _NOISE[::-1])
    for blob in (b"row" + frame + b"next row", b"page" + frame[: len(frame) - 50_000]):
        places = [(hit.place, hit.needle) for hit in scan_blobs([("log", blob)], [_PERSON])]
        assert (f"log[zstd at {blob.index(frame[:16])}]", _PERSON) in places


def test_clickhouse_blocks_are_opened() -> None:
    plain = b"Mia Li was here. " * 100
    for method, packed in (
        (0x82, lz4.block.compress(plain, store_size=False)),
        (0x90, zstandard.ZstdCompressor().compress(plain)),
    ):
        blob = b"".join(_clickhouse_block(method, packed, plain) for _ in range(2))
        hits = list(scan_blobs([("data.bin", blob)], [_PERSON]))
        in_blocks = [hit for hit in hits if "[block at" in hit.place]
        assert len(in_blocks) == 200


def test_needle_is_found_across_chunks_and_at_both_ends() -> None:
    search = ByteSearch([b"needle", b"needles", b"another one"])
    blob = bytearray((1 << 20) * 2 + 100)
    for place in (0, (1 << 20) - 3, len(blob) - 6):
        blob[place : place + 6] = b"needle"
    found = [offset for offset, _ in search.find(bytes(blob))]
    assert found == [0, (1 << 20) - 3, len(blob) - 6]


def test_overlapping_needles_are_all_reported() -> None:
    found = list(ByteSearch([b"needle", b"needles"]).find(b"two needles"))
    assert sorted(found) == [(4, b"needle"), (4, b"needles")]


@pytest.mark.parametrize("blob", [b"", b"needl"])
def test_blob_shorter_than_any_needle_holds_none(blob: bytes) -> None:
    assert list(ByteSearch([b"needle"]).find(blob)) == []


def test_short_needle_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 6 bytes"):
        ByteSearch([b"Mia"])


def test_random_bytes_hold_nothing_personal(needles: list[Needle]) -> None:
    assert list(scan_blobs([("noise", _NOISE)], needles)) == []
