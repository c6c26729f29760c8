"""Archives to test on: a folder, and S3 as `moto` plays it on a free loopback port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tallystick.archive import Archive
from tallystick.plumbing.objects import open_objects
from tests.archive.bucket import Bucket


@pytest.fixture(scope="session")
def bucket() -> Iterator[Bucket]:
    found = Bucket()
    yield found
    found.stop()


@pytest.fixture(params=["folder", "s3"])
def archive_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    if request.param == "folder":
        return str(tmp_path / "archive")
    found: Bucket = request.getfixturevalue("bucket")
    for name, value in found.credentials.items():
        monkeypatch.setenv(name, value)
    return found.url(tmp_path.name)


@pytest.fixture
def archive(archive_url: str) -> Archive:
    return Archive(open_objects(archive_url))
