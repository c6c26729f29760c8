"""The object store's contract, on a folder and on S3."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tallystick.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from tallystick.plumbing.objects import open_objects


def test_an_object_is_created_once_and_never_overwritten(archive_url: str) -> None:
    objects = open_objects(archive_url)
    objects.put_new("a/b=1/c.json", b"first")
    objects.put_new("a/b=1/c.json", b"first")  # a retry after a lost answer
    with pytest.raises(Conflict, match=r"a/b=1/c\.json"):
        objects.put_new("a/b=1/c.json", b"other")
    assert objects.get("a/b=1/c.json") == b"first"
    assert objects.get_range("a/b=1/c.json", 1, 3) == b"ir"


def test_of_many_writers_of_one_name_one_wins(archive_url: str) -> None:
    won: list[int] = []

    def write(number: int) -> None:
        try:
            open_objects(archive_url).put_new("claim", str(number).encode() * 1000)
        except Conflict:
            return
        won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1
    assert open_objects(archive_url).get("claim") == str(won[0]).encode() * 1000
    assert open_objects(archive_url).list("staging/") == []


def test_objects_are_listed_by_prefix_and_deleted(archive_url: str) -> None:
    objects = open_objects(archive_url)
    for name in ("x/2", "x/1", "xy/1"):
        objects.put_new(name, b"")
    assert objects.list("x/") == ["x/1", "x/2"]
    objects.delete(["x/1", "x/none"])
    assert objects.list("x/") == ["x/2"]
    assert objects.list("nothing/") == []
    with pytest.raises(NotFound, match="x/1"):
        objects.get("x/1")


@pytest.mark.parametrize("url", ["ftp://host/x", "s3://", "s3://bucket/x?secret_key=1"])
def test_a_bad_url_is_refused_clearly(url: str) -> None:
    with pytest.raises(InvalidInput, match="archive_url"):
        open_objects(url)


def test_a_store_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    objects = open_objects("s3://b/p?region=us-east-1&endpoint=http://127.0.0.1:9&allow_http=true")
    with pytest.raises(StoreUnavailable):
        objects.list("x/")


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    open_objects(f"file://{tmp_path}/with%20space").put_new("a", b"1")
    assert (tmp_path / "with space" / "a").read_bytes() == b"1"
