"""The embedded ClickHouse: chDB in the process that owns it, offered to the others.

chDB allows one owner process per folder. That process answers the part of ClickHouse's
HTTP interface that clickhouse-connect uses, on loopback and with a key, so every other
process of ours speaks to it as it would to a ClickHouse server.
"""

from __future__ import annotations

import base64
import faulthandler
import hmac
import queue
import re
import signal
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import chdb

from tallystick.plumbing.clickhouse import INSERTS

_ERROR_CODE = re.compile(r"Code: (\d+)")
_GUARDED_INSERT = re.compile(
    r"(INSERT INTO [\w.]+ \(.+?\) SELECT .+? FROM )input\('(.+?)'\)( WHERE .+) FORMAT Arrow", re.S
)
_ARROW_INSERT = re.compile(r"\s*INSERT INTO ([\w.`]+)\s*\((.+?)\)\s*FORMAT Arrow\s*", re.S | re.I)
_SECONDS = re.compile(r"\d+(\.\d+)?")
_INSERTS = ", ".join(f"{name} = {value}" for name, value in INSERTS.items())
_CONNECTIONS = 3
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)


def die_of_crashes() -> None:
    """Let a crash end this process and say where it was; in the main thread, once chDB is open.

    chDB takes these signals and waits for ever, wherever the fault was: nobody would see that the
    process is gone.
    """
    for crash in _CRASHES:
        signal.signal(crash, signal.SIG_DFL)
    faulthandler.enable()


class ChdbEndpoint:
    """Serves the chDB folder to other local processes over HTTP."""

    def __init__(self, folder: Path, *, key: str, port: int = 0) -> None:
        connections: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(_CONNECTIONS):
            connections.put(chdb.connect(str(folder.resolve())))  # type: ignore[no-untyped-call]
        self._connections = connections
        self._own: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._own.put(chdb.connect(str(folder.resolve())))  # type: ignore[no-untyped-call]
        handler = type("Handler", (_Handler,), {"connections": connections, "key": key})
        self._server = _Server(("127.0.0.1", port), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="chdb-endpoint", daemon=True
        )

    @property
    def port(self) -> int:
        """The loopback port that was free."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def ask(self) -> None:
        """Return once chDB has answered at all, on a connection that no request uses."""
        connection = self._own.get()
        try:
            with suppress(RuntimeError):  # to refuse is to answer
                connection.query("SELECT 1")
        finally:
            self._own.put(connection)

    def stop(self) -> None:
        """Answer what is under way, then close chDB."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for _ in range(_CONNECTIONS):
            self._connections.get().close()
        self._own.get().close()


class _Server(ThreadingHTTPServer):
    """A thread for each connection, which are those of our own processes."""

    daemon_threads = True
    allow_reuse_port = True
    """The parent holds the port, so that nobody else takes it between two of us."""
    request_queue_size = 1024
    """By default 5 may wait to be accepted: of those that connect at once others wait for seconds,
    for the kernel to ask again, or are cut off."""


class _Handler(BaseHTTPRequestHandler):
    """One request: a query in the URL or in the body, parameters as `param_x`.

    Parameters that are long in all come as a form, and the query with them.
    """

    connections: queue.SimpleQueue[Any]
    key: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def _answer(self, body: bytes) -> None:
        if not self._is_allowed():
            self._send(403, b"wrong key")
            return
        arguments = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        query = arguments.get("query", "")
        if (insert := _ARROW_INSERT.fullmatch(query)) is not None:
            table, columns = insert.groups()
            sql = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {{source}}"
            self._insert(sql, "", body, arguments)
            return
        if (guarded := _GUARDED_INSERT.fullmatch(query)) is not None:
            begin, structure, condition = guarded.groups()
            sql = f"{begin}{{source}}{condition}"
            self._insert(sql, f", '{structure}'", body, arguments)
            return
        media_type = self.headers.get("Content-Type", "")
        if media_type.startswith("multipart/form-data"):
            form = read_form(media_type, body)
            query, body = form.pop("query", query), b""
            arguments |= form
        sql = "\n".join(part for part in (query, body.decode()) if part)
        values = {
            name.removeprefix("param_"): value
            for name, value in arguments.items()
            if name.startswith("param_")
        }
        if not sql:
            self._send(200, b"Ok.\n")
            return
        try:
            self._send(200, self._run(sql, values, arguments))
        except RuntimeError as error:
            self._send(500, str(error).encode())

    def _insert(self, sql: str, structure: str, body: bytes, arguments: Mapping[str, str]) -> None:
        """Take Arrow rows: chDB reads them from a file, which stands for `{source}`."""
        with tempfile.NamedTemporaryFile(suffix=".arrow") as file:
            file.write(body)
            file.flush()
            source = f"file('{file.name}', 'Arrow'{structure})"
            try:
                self._run(sql.replace("{source}", source), {}, arguments)
            except RuntimeError as error:
                self._send(500, str(error).encode())
                return
        self._send(200, b"")

    def _run(self, sql: str, values: dict[str, str], arguments: Mapping[str, str]) -> bytes:
        """Within the time that the request gives: who sent it has given up after that."""
        seconds = arguments.get("max_execution_time", "0")
        if not _SECONDS.fullmatch(seconds):
            raise RuntimeError("max_execution_time is not a number of seconds")
        connection = self.connections.get()
        try:
            connection.query(f"SET max_execution_time = {seconds}, {_INSERTS}")
            return bytes(connection.query(sql, "TabSeparated", params=values).bytes())
        finally:
            self.connections.put(connection)

    def _is_allowed(self) -> bool:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "Basic":
            return False
        given = base64.b64decode(token.encode(), validate=False)
        return hmac.compare_digest(given, f"tallystick:{self.key}".encode())

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        if status >= 400 and (code := _ERROR_CODE.search(content.decode("utf-8", "replace"))):
            self.send_header("X-ClickHouse-Exception-Code", code.group(1))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent: queries may name tenants and users."""


def read_form(media_type: str, body: bytes) -> dict[str, str]:
    """The fields of a form (RFC 7578), each a text in UTF-8."""
    form = message_from_bytes(f"Content-Type: {media_type}\r\n\r\n".encode() + body)
    return {
        str(part.get_param("name", header="content-disposition")): _text(part)
        for part in form.walk()
        if not part.is_multipart()
    }


def _text(part: Message) -> str:
    content = part.get_payload(decode=True)
    return content.decode() if isinstance(content, bytes) else ""
