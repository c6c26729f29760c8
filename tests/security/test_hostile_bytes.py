"""Bytes that are too many, too slow, too deep, or meant for another reader."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard

from tallystick.api.routes import ROUTES
from tallystick.bounds import GATEWAY_BODY_BYTES_MAX
from tests.security.scene import Scene
from tests.server import event

pytestmark = pytest.mark.slow
_STALLED = 150
_LARGE = 70 * 1024 * 1024
_WITH_BODY = sorted(
    {(one.method, re.sub(r"\{\w+(:path)?\}", "nothing", one.path)) for one in ROUTES
     if one.body_example is not None and not one.is_for_operator}
    | {("POST", "/openai/v1/chat/completions"), ("POST", "/anthropic/v1/messages")}
)  # fmt: skip


def _connect(scene: Scene) -> socket.socket:
    host, _, port = scene.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


@pytest.fixture(scope="module")
def stalled(scene: Scene) -> Iterator[list[socket.socket]]:
    """Connections that stop in the middle: before a byte, in the head, in the body."""
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {scene.operator}\r\n"
    beginnings = ["", head, f"{head}Content-Length: 1000\r\n\r\n[", "GET"]
    opened = []
    for number in range(_STALLED):
        one = _connect(scene)
        one.sendall(beginnings[number % len(beginnings)].encode())
        opened.append(one)
    yield opened
    for one in opened:
        one.close()


def test_stalled_connections_stop_nobody(scene: Scene, stalled: list[socket.socket]) -> None:
    assert len(stalled) == _STALLED
    for _ in range(20):
        assert scene.ask("GET", "/v1/whoami").status_code == 200
    assert scene.ask("POST", "/v1/events", json=[event(event_id="meanwhile")]).status_code == 200


# Too many


@pytest.mark.parametrize(("method", "path"), _WITH_BODY)
def test_a_body_that_is_declared_too_large_is_not_read(
    scene: Scene, method: str, path: str
) -> None:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {scene.keys['acme', 'admin']}\r\nContent-Length: {10**12}\r\n\r\n["
    )
    with _connect(scene) as connection:
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(4096).partition(b"\r\n")[0]


@pytest.mark.parametrize(("method", "path"), _WITH_BODY)
def test_a_body_without_end_is_cut(scene: Scene, method: str, path: str) -> None:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {scene.keys['acme', 'admin']}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    piece = b"100000\r\n" + b"[" * 0x100000 + b"\r\n"
    sent = 0
    answer = b""
    with _connect(scene) as connection:
        connection.sendall(head.encode())
        connection.settimeout(0.02)
        while sent < _LARGE and not answer:
            try:
                connection.settimeout(10)
                connection.sendall(piece)
                sent += len(piece)
                connection.settimeout(0.001)
                answer = connection.recv(4096)
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert sent <= GATEWAY_BODY_BYTES_MAX + 8 * len(piece)
    assert not answer or b" 413 " in answer.partition(b"\r\n")[0], answer


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/traces", "/v1/logs"])
def test_a_bomb_does_not_unfold(scene: Scene, path: str, encoding: str) -> None:
    content = b" " * (256 * 1024 * 1024)
    packed = gzip.compress(content, 1) if encoding == "gzip" else zstandard.compress(content)
    headers = {"Content-Encoding": encoding, "Content-Type": "application/json"}
    key = scene.keys["acme", "service"]
    answer = scene.ask("POST", path, key, content=packed, headers=headers)
    assert answer.status_code == 413, answer.text


@pytest.mark.parametrize(("method", "path"), _WITH_BODY)
@pytest.mark.parametrize("piece", ["[", '{"a":'])
def test_deep_nesting_is_refused(scene: Scene, method: str, path: str, piece: str) -> None:
    key = scene.keys["acme", "admin"]
    headers = {"Content-Type": "application/json"}
    for depth in (1_000, 100_000):
        body = piece * depth
        for text in (body, body + "1" + ("]" if piece == "[" else "}") * depth):
            answer = scene.ask(method, path, key, content=text, headers=headers)
            assert answer.status_code < 500, answer.text
            assert path == "/v1/events" or answer.status_code >= 400


def test_a_long_head_is_cut(scene: Scene) -> None:
    sent = 0
    with _connect(scene) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        try:
            while sent < 16 * 1024 * 1024:
                connection.sendall(b"X-Many: " + b"a" * 4000 + b"\r\n")
                sent += 4010
            raise AssertionError("a head without end is read")
        except ConnectionError:
            pass
    assert scene.ask("GET", "/healthz").status_code == 200


# Meant for another reader


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: +5\r\n",
        "Content-Length : 5\r\n",
    ],
)
def test_requests_are_not_smuggled(scene: Scene, lines: str) -> None:
    inner = "GET /v1/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    text = (
        f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {scene.operator}\r\n"
        f"{lines}\r\n0\r\n\r\n{inner}"
    )
    with _connect(scene) as connection:
        connection.sendall(text.encode())
        connection.settimeout(5)
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1, answer


@pytest.mark.parametrize(
    "path",
    [
        "/static/../pages.py",
        "/static/%2e%2e/pages.py",
        "/static/..%2fpages.py",
        "/static/....//pages.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/..%5cpages.py",
        "/static/style.css%00.html",
        "//etc/passwd",
        "/v1/schemas/..%2f..%2fsettings.py",
        "/v1/schemas/%2e%2e%2fasyncapi.yaml",
        "/v1/schemas/..",
        "/v1/accounts/..%2f..%2fv1%2fapi-keys/balance",
    ],
)
def _with_an_offer(scene: Scene, content: bytes) -> bytes:
    return (
        f"POST /v1/events HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: x\r\n"
        f"Content-Length: {len(content)}\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
        f"Upgrade: h2c\r\nAuthorization: Bearer {scene.operator}\r\n\r\n"
    ).encode()


def test_an_offer_of_http_2_is_ignored(scene: Scene) -> None:
    """Java's own client makes it with each request over plain HTTP, its body in a write apart."""
    with _connect(scene) as one:
        for number in range(2):
            content = json.dumps(event(event_id=f"h2c-{number}", run_id="h2c")).encode()
            one.sendall(_with_an_offer(scene, content))
            one.sendall(content)
            answer = b""
            while not answer.endswith(b"}") and (piece := one.recv(65536)):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 200") and b'"accepted":1' in answer, answer


def test_no_path_leads_out(scene: Scene, path: str) -> None:
    text = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {scene.operator}\r\n\r\n"
    with _connect(scene) as connection:
        connection.sendall(text.encode())
        answer = connection.recv(65536)
    status = int(answer.split(b" ")[1])
    assert status in (400, 404, 405), answer
    assert b"root:" not in answer and b"import" not in answer


@pytest.mark.parametrize("path", ["/v1//holds", "/v1/holds/", "/V1/holds", "/v1/./holds"])
def test_another_spelling_is_no_way_round_the_gate(scene: Scene, path: str) -> None:
    answer = scene.ask("POST", path, "", json={})
    assert answer.status_code in (307, 401, 404, 405)


# What comes back


_BREAK = "x\r\nX-Injected: 1\r\n\r\n<script>alert(1)</script>"


def test_no_value_breaks_out_of_a_header(scene: Scene) -> None:
    key = scene.keys["acme", "service"]
    chat: dict[str, Any] = {
        "model": "gpt-4o" + _BREAK,
        "messages": [{"role": "user", "content": "hi"}],
    }
    answers = [scene.ask("POST", "/openai/v1/chat/completions", key, json=chat)]
    chat["model"] = "gpt-4o"
    chat["metadata"] = {"feature": _BREAK, "team": "ü€\u2028"}
    answers.append(scene.ask("POST", "/openai/v1/chat/completions", key, json=chat))
    for name in ("Run", "Feature", "Team", "Parent-Run"):
        headers = {f"X-Tallystick-{name}": "x\u2028y\u00e9".encode()}
        answers.append(
            scene.ask("POST", "/openai/v1/chat/completions", key, json=chat, headers=headers)
        )
    answers.append(scene.ask("GET", "/runs/" + "x%0d%0aX-Injected:%201"))
    answers.append(scene.nobody.get("/static/%0d%0aX-Injected:%201"))
    budget = {"asset": "USD", "amount": "1", "tenant_id": "acme", "scope": {"team": _BREAK}}
    answers.append(scene.ask("PUT", "/v1/budgets/x%0d%0aX-Injected:%201", json=budget))
    for answer in answers:
        assert "x-injected" not in answer.headers
        assert answer.status_code < 500, answer.text


def test_no_field_chooses_where_a_call_goes(scene: Scene) -> None:
    """The upstream is of the settings: the real one is asked, or nobody."""
    key = scene.keys["acme", "service"]
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}"
        chat: dict[str, Any] = {
            "model": "gpt-4o",
            "max_tokens": 5,
            "messages": [{"role": "user", "content": "hi"}],
        }
        for name in ("base_url", "api_base", "upstream", "url", "host", "proxy", "endpoint"):
            headers = {"X-Base-Url": url, "X-Upstream": url, "X-Tallystick-Upstream": url,
                       "Host": url.removeprefix("http://"), "X-Forwarded-Host": url}  # fmt: skip
            scene.ask(
                "POST", "/openai/v1/chat/completions", key, json={**chat, name: url},
                headers=headers,
            )  # fmt: skip
        for model in (url, f"{url}/gpt-4o", f"openai/{url}", "../gpt-4o", "gpt-4o?x=1#"):
            answer = scene.ask(
                "POST", "/openai/v1/chat/completions", key, json={**chat, "model": model}
            )
            assert answer.status_code in (400, 402, 403, 404), answer.text
        with pytest.raises(TimeoutError):
            trap.accept()


def test_webhooks_and_identity_providers_lead_nowhere_inside(scene: Scene) -> None:
    inside = (
        "https://127.0.0.1/x", "https://169.254.169.254/latest/meta-data", "http://example.com/x",
        "https://[::1]/x", "https://[::ffff:10.0.0.1]/x", "https://10.0.0.1/x", "file:///etc/passwd",
        "gopher://x/1", "https://user@example.com/x", "https://example.com:0/x", "https:///x",
    )  # fmt: skip
    for url in inside:
        hook = {"tenant_id": "acme", "name": "h", "kind": "webhook", "target": url}
        assert scene.ask("POST", "/v1/alert-channels", json=hook).status_code == 400, url
        slack = {**hook, "kind": "slack"}
        assert scene.ask("POST", "/v1/alert-channels", json=slack).status_code == 400, url
        trusted = {"tenant_id": "acme", "issuer": "https://x.example", "audience": "a"}
        trusted["jwks_url"] = url
        assert scene.ask("POST", "/v1/identity-providers", json=trusted).status_code == 400, url
    mail = {"tenant_id": "acme", "name": "m", "kind": "email"}
    for target in ("a@example.com\r\nBcc: b@example.com", "a@b\0", "a@example.com\nSubject: x"):
        made = scene.ask("POST", "/v1/alert-channels", json={**mail, "target": target})
        assert made.status_code == 400, target


# Too slow: what was left hanging at the beginning


def test_what_stalls_is_closed(scene: Scene, stalled: list[socket.socket]) -> None:
    deadline = time.monotonic() + 120
    for one in stalled:
        one.settimeout(max(deadline - time.monotonic(), 1))
        try:
            while one.recv(4096):
                pass
        except ConnectionError:
            pass
    problems = json.loads(scene.ask("GET", "/readyz").text)
    assert problems["ready"]
