"""Every byte that the stores keep, readable: raw, and decompressed where it is compressed.

- zstd frames: found by their magic number wherever they start (log batches, archives);
- ClickHouse blocks: 16 bytes of checksum, method (0x82 LZ4, 0x90 zstd), compressed size
  with this 9-byte header, plain size, content; found wherever such a header makes sense.

PostgreSQL cuts long values into pieces of 2 KB and may compress them, so its files alone
do not show them: `postgres_blobs` reads every table through the server as well.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import lz4.block  # type: ignore[import-untyped]
import psycopg
import zstandard
from psycopg import sql

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_METHOD = re.compile(rb"[\x82\x90]")
_LZ4 = 0x82
_CHECKSUM_BYTES = 16
_HEADER = struct.Struct("<BII")
_PLAIN_BYTES_MAX = 64 << 20
_READ_BYTES = 1 << 16

_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY 1, 2
"""


def folder_blobs(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every regular file below `folder`: its path in the folder, its bytes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path.relative_to(folder)), path.read_bytes()


def postgres_blobs(url: str) -> Iterator[tuple[str, bytes]]:
    """Every table of a PostgreSQL database as the server reads it (COPY, binary)."""
    with psycopg.connect(url) as connection:
        for schema, table in connection.execute(_TABLES).fetchall():
            name = sql.Identifier(schema, table)
            query = sql.SQL("COPY {} TO STDOUT (FORMAT binary)").format(name)
            with connection.cursor().copy(query) as copy:
                yield f"table {schema}.{table}", b"".join(bytes(row) for row in copy)


def readable_views(blob: bytes) -> Iterator[tuple[str, bytes]]:
    """The blob itself (view ""), then what can be decompressed inside it."""
    yield "", blob
    for offset, content in _zstd_frames(blob):
        yield f"[zstd at {offset}]", content
    for offset, content in _clickhouse_blocks(blob):
        yield f"[block at {offset}]", content


def _zstd_frames(blob: bytes) -> Iterator[tuple[int, bytes]]:
    offset = blob.find(_ZSTD_MAGIC)
    while offset >= 0:
        if content := _unpack_zstd(memoryview(blob)[offset:]):
            yield offset, content
        offset = blob.find(_ZSTD_MAGIC, offset + 1)


def _unpack_zstd(frame: memoryview) -> bytes:
    """As much as can be read: a frame that is cut off still shows its beginning."""
    content = bytearray()
    try:
        with zstandard.ZstdDecompressor().stream_reader(frame) as reader:
            while len(content) < _PLAIN_BYTES_MAX and (piece := reader.read(_READ_BYTES)):
                content += piece
    except zstandard.ZstdError:
        pass
    return bytes(content)


def _clickhouse_blocks(blob: bytes) -> Iterator[tuple[int, bytes]]:
    offset = _CHECKSUM_BYTES
    while found := _METHOD.search(blob, offset):
        offset = found.start() + 1
        if content := _unpack_block(blob, found.start()):
            yield found.start(), content
            offset = found.start() + _HEADER.unpack_from(blob, found.start())[1]


def _unpack_block(blob: bytes, start: int) -> bytes:
    """The plain content of the block whose header is at `start`, or nothing."""
    if start + _HEADER.size > len(blob):
        return b""
    method, packed_bytes, plain_bytes = _HEADER.unpack_from(blob, start)
    end = start + packed_bytes
    if not _HEADER.size < packed_bytes or end > len(blob) or plain_bytes > _PLAIN_BYTES_MAX:
        return b""
    packed = memoryview(blob)[start + _HEADER.size : end]
    try:
        if method == _LZ4:
            content = lz4.block.decompress(packed, uncompressed_size=plain_bytes)
        else:
            content = zstandard.ZstdDecompressor().decompress(packed, plain_bytes)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError):
        return b""
    return content if len(content) == plain_bytes else b""
