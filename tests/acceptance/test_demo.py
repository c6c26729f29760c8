"""`tallystick demo`: every figure agrees, nothing personal is stored, replay changes nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zstandard

from tallystick.bootstrap import open_platform
from tallystick.demo.traces import airline_runs
from tallystick.settings import Settings

_DISTINCTIVE = 24


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "data"
    done = subprocess.run(
        [sys.executable, "-m", "tallystick.cli.main", "demo", "--exit", "--data", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every figure agrees" in done.stdout
    assert "DIFFERS" not in done.stdout
    return folder


def personal_strings() -> set[bytes]:
    """Names with ids, e-mail and street addresses, payment ids, and whole sentences."""
    found: set[str] = set()
    for run in airline_runs():
        found.add(run["info"]["task"]["user_id"])
        for turn in run["traj"]:
            text = turn.get("content") or ""
            found.update(re.findall(r"[\w.]+@[\w.]+\.\w+", text))
            found.update(re.findall(r"(?:credit_card|gift_card|certificate)_\d+", text))
            found.update(re.findall(r'"address1": "([^"]+)"', text))
            found.update(re.findall(r"\d+ [A-Z]\w+ (?:Drive|Street|Avenue|Lane|Road)", text))
            if turn["role"] == "user":
                found.update(
                    sentence.strip()
                    for sentence in re.split(r"[.!?\n]", text)
                    if len(sentence.strip()) >= _DISTINCTIVE
                )
    return {text.encode() for text in found if len(text) >= 8}


def _stored(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file as it is, and what is compressed inside the stores in plain."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()
    with open_platform(Settings(data=str(folder))) as platform:
        position = 0
        while batches := platform.log.read(position, batches_max=100):
            for batch in batches:
                yield f"log {position}", zstandard.ZstdDecompressor().decompress(batch.payload)
            position = batches[-1].offset_end
        for table in ("facts", "deliveries", "runs", "charges"):
            rows = platform.clickhouse.query_rows(
                f"SELECT * EXCEPT (content_digest) FROM tallystick.{table}"
                if table == "facts"
                else f"SELECT * FROM tallystick.{table}"
            )
            yield table, msgspec.json.encode(rows)


def test_nothing_personal_is_stored(demo_folder: Path) -> None:
    """INV-14: the demo sends real personal data on purpose; none of it may be found."""
    needles = personal_strings()
    assert len(needles) > 500
    pattern = re.compile(b"|".join(map(re.escape, sorted(needles, key=len, reverse=True))))
    scanned = 0
    for name, content in _stored(demo_folder):
        scanned += len(content)
        hit = pattern.search(content)
        assert hit is None, f"{name} holds {hit.group()!r}"
    assert scanned > 5_000_000


def test_the_scan_would_find_it() -> None:
    needles = personal_strings()
    assert b"mia_li_3668" in needles
    assert any(b"@" in needle for needle in needles)


def test_replay_gives_the_same_totals(demo_folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tallystick.cli.main", "replay", "--json"]
        + ["--data", str(demo_folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answer = msgspec.json.decode(done.stdout)
    assert answer["same"]
    assert answer["after"]["facts"] > 34_000
