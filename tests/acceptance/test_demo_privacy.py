"""After the demo, no file of the data folder and no table holds anything personal.

Runs the real command on fresh embedded stores. The same scan must find what is allowed to
be stored, in every store: a scan that sees nothing would also find nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.plumbing.embedded.folder import DataFolder
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tests.acceptance.personal_data import Needle, personal_strings, scan_blobs, scan_folder
from tests.acceptance.stored_bytes import postgres_blobs

_ALLOWED = Needle("allowed", "airline_support")


@pytest.fixture(scope="module")
def tables(demo_folder: Path) -> list[tuple[str, bytes]]:
    """What PostgreSQL holds, read through the server: long values are cut up in its files."""
    folder = DataFolder(demo_folder)
    server = EmbeddedPostgres(folder)
    server.start()
    try:
        return list(postgres_blobs(server.url))
    finally:
        server.stop()
        folder.close()


@pytest.mark.slow
def test_nothing_personal_is_stored(demo_folder: Path, tables: list[tuple[str, bytes]]) -> None:
    hits = scan_folder(demo_folder, personal_strings(), tables)
    assert hits == [], f"{len(hits)} hits, the first: {hits[:10]}"


@pytest.mark.slow
def test_scan_sees_into_every_store(demo_folder: Path, tables: list[tuple[str, bytes]]) -> None:
    in_tables = {hit.place.partition("[")[0] for hit in scan_blobs(tables, [_ALLOWED])}
    in_files = {hit.place.split("/")[0] for hit in scan_folder(demo_folder, [_ALLOWED])}
    assert "table log.batch" in in_tables
    assert "clickhouse" in in_files
