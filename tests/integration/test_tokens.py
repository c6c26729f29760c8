"""Tokens of identity providers and revocation, on a real database and a real key server."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import FrameType
from typing import Any

import psycopg
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from tallystick.access import OPERATOR, Access, AccessSecret, Grant, ProviderGrant
from tallystick.access import providers as providers_module
from tallystick.access.known import CACHE_SECONDS_MAX, Known
from tallystick.clock import SystemClock
from tallystick.errors import InvalidInput, StoreUnavailable, TallystickError, Unauthorized
from tallystick.ids import Uuid7Source
from tallystick.plumbing.outbound import OutboundPolicy, Unreachable, fetch
from tallystick.plumbing.postgres import acting_for, open_pool, transaction

AUDIENCE = "tallystick"


class KeyServer:
    """An identity provider's keys on loopback."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.fetches = 0
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.fetches += 1
                body = json.dumps({"keys": outer.keys}).encode()
                self.send_response(302 if self.path == "/away" else 200)
                self.send_header("Location", "/jwks")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.thread = Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextmanager
def access_on(url: str, **more: Any) -> Iterator[Access]:
    pool = open_pool(url, connections_max=3)
    clock = SystemClock()
    made = Access(
        pool,
        AccessSecret(more.get("secret", "one secret")),
        clock,
        Uuid7Source(clock),
        admin_key="the admin key",
        issuer="http://own",
        outbound=OutboundPolicy(allow_private=True),
    )
    made.start()
    try:
        yield made
    finally:
        made.close()
        pool.close()


@pytest.fixture(scope="module")
def access(postgres_url: str) -> Iterator[Access]:
    with access_on(postgres_url) as made:
        yield made


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    made = KeyServer()
    yield made
    made.close()


def _key(key_id: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": key_id})


def _public(key: Any) -> dict[str, Any]:
    return dict(key.as_dict(private=False))


def _trust(access: Access, server: KeyServer, **more: Any) -> str:
    issuer = f"https://idp.example/{time.monotonic_ns()}"
    access.trust(
        ProviderGrant(
            tenant_id="acme",
            issuer=issuer,
            audience=AUDIENCE,
            jwks_url=more.get("jwks_url", server.url + "/jwks"),
            default_roles=("viewer",),
        ),
        OPERATOR,
    )
    return issuer


def _token(issuer: str, key: Any, header: dict[str, Any] | None = None, **claims: Any) -> str:
    now = int(time.time())
    said = {"iss": issuer, "aud": AUDIENCE, "sub": "mia", "iat": now, "exp": now + 300, **claims}
    algorithm = (header or {}).get("alg", "RS256")
    kid = {"kid": key.kid} if getattr(key, "kid", None) else {}
    return jwt.encode({"alg": algorithm, **kid, **(header or {})}, said, key, [algorithm])


def _ask(access: Access, token: str) -> Any:
    return asyncio.run(access.authenticate(token, "127.0.0.1"))


def _is_refused(access: Access, token: str) -> bool:
    try:
        _ask(access, token)
    except Unauthorized as error:
        return token not in error.message
    return False


def _signed_with(secret: bytes, token: str) -> str:
    """The token's claims under HMAC with a secret, such as a public key's text."""
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"k1"}').rstrip(b"=").decode()
    text = f"{head}.{token.split('.')[1]}"
    signature = hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _without_signature(token: str, header: dict[str, Any]) -> str:
    text = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{text}.{token.split('.')[1]}."


def test_confused_tokens_are_refused(access: Access, key_server: KeyServer) -> None:
    key, other = _key("k1"), _key("k1")
    curve = ECKey.generate_key("P-256", {"kid": "k2"})
    shared = OctKey.import_key(
        {"kty": "oct", "kid": "k3", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}
    )
    key_server.keys = [_public(key), _public(curve), shared.as_dict(private=True)]
    issuer = _trust(access, key_server)
    good = _token(issuer, key)
    found = _ask(access, good)
    assert (found.tenant_id, found.roles) == ("acme", {"viewer"})
    assert _ask(access, _token(issuer, curve, {"alg": "ES256"})).tenant_id == "acme"
    head, body, signature = good.split(".")
    refused: dict[str, str] = {
        "alg none": _without_signature(good, {"alg": "none"}),
        "alg None": _without_signature(good, {"alg": "NoNe", "kid": "k1"}),
        "public key as secret": _signed_with(key.as_pem(private=False), good),
        "published shared secret": _token(issuer, shared, {"alg": "HS256", "kid": "k3"}),
        "wrong key": _token(issuer, other),
        "another algorithm": _token(issuer, key, {"alg": "PS256"}),
        "key of another kind": _token(issuer, curve, {"alg": "ES256", "kid": "k1"}),
        "own key in the header": _token(issuer, other, {"jwk": _public(other), "kid": "x"}),
        "keys from the header": _token(issuer, other, {"jku": key_server.url, "kid": "x"}),
        "a key in the header": _token(issuer, key, {"jwk": _public(key)}),
        "another place for keys": _token(issuer, key, {"jku": key_server.url + "/jwks"}),
        "a certificate's place": _token(issuer, key, {"x5u": key_server.url + "/cert"}),
        "certificates": _token(issuer, key, {"x5c": ["AAAA"]}),
        "a token in a token": _token(issuer, key, {"cty": "JWT"}),
        "encrypted": good.replace(".", "..", 1) + ".AAAA",
        "critical": _token(issuer, key, {"crit": ["b64"], "b64": True}),
        "wrong audience": _token(issuer, key, aud="another"),
        "wrong issuer": _token("https://else.example", key),
        "our own issuer": _token("http://own", key),
        "expired": _token(issuer, key, exp=int(time.time()) - 60),
        "from the future": _token(issuer, key, nbf=int(time.time()) + 600),
        "no end": _token(issuer, key, exp=None),
        "no subject": _token(issuer, key, sub=None),
        "changed": f"{head}.{body[:-4]}AAAA.{signature}",
        "no signature": f"{head}.{body}.",
        "too long": good + "A" * 10_000,
        "no JSON": "e30.e30x.e30",
        "nested": base64.urlsafe_b64encode(b"[" * 3000).decode() + ".e30.e30",
    }
    let_in = [name for name, token in refused.items() if not _is_refused(access, token)]
    assert let_in == []


def _work(access: Access, text: str) -> Counter[str]:
    """The steps that a refusal takes, in this thread and those that it starts."""
    done: Counter[str] = Counter()

    def count(frame: FrameType, event: str, what: Any) -> None:
        name = frame.f_code.co_name if event == "call" else getattr(what, "__name__", "")
        if event in ("call", "c_call") and name in _STEPS:
            done[name] += 1

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        assert _is_refused(access, text)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return done


_STEPS = {"hash_of", "compare_digest", "recall", "look_up", "load_by_prefix", "execute"}


def test_a_wrong_secret_takes_the_work_of_an_unknown_key(access: Access, postgres_url: str) -> None:
    """Counted, not timed: so nobody learns which keys there are."""
    made, _ = access.create("key", Grant(name="n", tenant_id="acme"), OPERATOR)
    rotated, _ = access.create("key", Grant(name="r", tenant_id="acme"), OPERATOR)
    access.rotate("key", rotated.credential_id, 60, OPERATOR)
    gone, _ = access.create("key", Grant(name="g", tenant_id="acme"), OPERATOR)
    access.revoke("key", gone.credential_id, OPERATOR)
    found = []
    for prefix in (made.prefix, rotated.prefix, gone.prefix, "zzzzzzzz"):
        text = f"ts_{prefix}_{'0' * 64}"
        with access_on(postgres_url) as fresh:
            found.append((_work(fresh, text), _work(fresh, text)))
    assert found[0][0]["hash_of"] == 1 and found[0][0]["compare_digest"] >= 2
    assert found[0][0]["load_by_prefix"] == 1 and not found[0][1]["load_by_prefix"]
    assert found == [found[0]] * 4


def test_keys_rotate_and_made_up_key_ids_fetch_once(
    access: Access, key_server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _key("first"), _key("second")
    key_server.keys = [_public(first)]
    issuer = _trust(access, key_server)
    _ask(access, _token(issuer, first))
    key_server.keys = [_public(second)]
    for number in range(20):  # too soon to ask again, whoever asks
        assert _is_refused(access, _token(issuer, _renamed(second, f"made-up-{number}")))
    assert key_server.fetches == 1
    monkeypatch.setattr(providers_module, "FETCH_SECONDS_MIN", 0)
    assert _ask(access, _token(issuer, second)).tenant_id == "acme"
    assert key_server.fetches == 2
    assert _is_refused(access, _token(issuer, first, jti="not remembered"))


def _renamed(key: RSAKey, key_id: str) -> RSAKey:
    return RSAKey.import_key({**key.as_dict(private=True), "kid": key_id})


def test_a_redirect_is_not_followed(access: Access, key_server: KeyServer) -> None:
    key = _key("k")
    key_server.keys = [_public(key)]
    issuer = _trust(access, key_server, jwks_url=key_server.url + "/away")
    with pytest.raises(StoreUnavailable):
        _ask(access, _token(issuer, key))


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://10.1.2.3/",
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433/",
        "https://0.0.0.0/",
        "https://user@8.8.8.8/",
        "http://8.8.8.8/",
        "ftp://8.8.8.8/",
    ],
)
def test_no_url_leads_inside(url: str) -> None:
    with pytest.raises((InvalidInput, Unreachable)):
        fetch(url, OutboundPolicy(), bytes_max=10)


def test_a_large_answer_is_cut(key_server: KeyServer) -> None:
    key_server.keys = [{"kty": "x" * 1000}]
    with pytest.raises(Unreachable):
        fetch(key_server.url, OutboundPolicy(allow_private=True), bytes_max=100)


def test_a_revocation_counts_elsewhere_within_a_second(access: Access, postgres_url: str) -> None:
    with access_on(postgres_url) as elsewhere:
        made, secret = access.create("key", Grant(name="n", tenant_id="acme"), OPERATOR)
        assert _ask(elsewhere, secret).key_id == made.credential_id
        access.revoke("key", made.credential_id, OPERATOR)
        started = time.monotonic()
        while not _is_refused(elsewhere, secret):
            assert time.monotonic() - started < 1
            time.sleep(0.005)
        assert _is_refused(access, secret)


def test_another_access_secret_opens_nothing(access: Access, postgres_url: str) -> None:
    _, secret = access.create("key", Grant(name="n", tenant_id="acme"), OPERATOR)
    with access_on(postgres_url, secret="another") as stranger:
        assert _is_refused(stranger, secret)


def test_what_cannot_be_confirmed_is_not_believed() -> None:
    now, is_away = [0.0], [False]

    def load_version() -> int:
        if is_away[0]:
            raise StoreUnavailable("away")
        return 1

    known: Known[str] = Known({"a": "found"}.get, load_version, tick=lambda: now[0])
    assert known.look_up("a") == "found" and known.look_up("b") is None
    assert known.recall("a") == "found" and known.recall("b") is None
    is_away[0], now[0] = True, CACHE_SECONDS_MAX + 0.01
    for name in ("a", "b"):
        with pytest.raises(KeyError):
            known.recall(name)
        with pytest.raises(StoreUnavailable):
            known.look_up(name)


def test_an_answer_from_before_a_change_is_not_remembered() -> None:
    version = [1]
    known: Known[str]

    def load(_: str) -> str:
        version[0] = 2  # revoked while it was read
        known.refresh()
        return "as it was"

    known = Known(load, lambda: version[0])
    assert known.look_up("a") == "as it was"
    with pytest.raises(KeyError):
        known.recall("a")


def test_trying_keys_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.access.known._ABSENT_MAX", 100)
    known: Known[str] = Known(lambda _: None, lambda: 1)
    for number in range(1000):
        known.look_up(str(number))
    assert len(known._absent) <= 100


def test_no_key_is_logged(access: Access, caplog: pytest.LogCaptureFixture) -> None:
    _, secret = access.create("key", Grant(name="n", tenant_id="acme"), OPERATOR)
    with caplog.at_level(logging.DEBUG):
        _ask(access, secret)
        assert _is_refused(access, secret[:-1] + "g")
    assert secret not in caplog.text and secret[12:40] not in caplog.text


# The second wall


_OWNERS = """
SELECT table_schema || '.' || table_name FROM information_schema.columns
JOIN information_schema.tables USING (table_schema, table_name)
WHERE column_name = 'tenant_id' AND table_type = 'BASE TABLE'
    AND table_schema NOT IN ('pg_catalog', 'information_schema')
"""
_WALLED = """
SELECT schemaname || '.' || tablename FROM pg_policies WHERE policyname = 'of_tenant'
    AND permissive = 'RESTRICTIVE'
"""


def test_every_table_that_names_a_tenant_has_a_policy(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        owned = {row[0] for row in connection.execute(_OWNERS.encode())}
        walled = {row[0] for row in connection.execute(_WALLED.encode())}
    assert owned <= walled and "ledger.operation" in owned
    assert {"ledger.balance", "ledger.lot", "backfill.backfill"} <= walled


@contextmanager
def _acting_for(tenant_id: str) -> Iterator[None]:
    token = acting_for.set(tenant_id)
    try:
        yield
    finally:
        acting_for.reset(token)


_SEED = """
INSERT INTO ledger.account (account_id, tenant_id, created_at) VALUES ('{0}', '{0}', 0);
INSERT INTO ledger.balance (account_id, capture_policy, unknown_policy)
    VALUES ('{0}', 'cap', 'capture');
INSERT INTO ledger.lot (lot_id, account_id, source, priority, created_at, granted)
    VALUES (gen_random_uuid(), '{0}', 'topup', 1, 0, 1);
INSERT INTO ledger.run_charge (tenant_id, run_id, account_id, target, charged, shortfall, revision,
    updated_at) VALUES ('{0}', 'r', '{0}', 0, 0, 0, 1, 0);
INSERT INTO broken.state (tenant_id, broken_id, status, changed_at, changed_by)
    VALUES ('{0}', 'b', 'open', 0, 'x');
"""


def test_a_query_that_forgets_its_tenant_finds_no_other(access: Access, postgres_url: str) -> None:
    for tenant in ("wall-a", "wall-b"):
        with psycopg.connect(postgres_url) as connection:
            connection.execute(_SEED.format(tenant).encode())
        access.create("key", Grant(name="n", tenant_id=tenant), OPERATOR)
    pool = open_pool(postgres_url, connections_max=1)

    def owners(table: str, column: str) -> set[str]:
        with transaction(pool) as connection:
            rows = connection.execute(f"SELECT {column} FROM {table}".encode()).fetchall()
        return {row[0] for row in rows}

    tables = {
        "ledger.account": "tenant_id",
        "ledger.balance": "account_id",
        "ledger.lot": "account_id",
        "ledger.run_charge": "tenant_id",
        "broken.state": "tenant_id",
        "access.credential": "tenant_id",
    }
    for table, column in tables.items():
        with _acting_for("wall-a"):
            assert owners(table, column) == {"wall-a"}, table
        assert owners(table, column) >= {"wall-a", "wall-b"}, table
    writes: list[Callable[[Any], Any]] = [
        lambda connection: connection.execute(b"UPDATE broken.state SET status = 'fixed'"),
        lambda connection: connection.execute(_SEED.format("wall-c").encode()),
    ]
    with _acting_for("wall-a"), transaction(pool) as connection:
        assert writes[0](connection).rowcount == 1
    with _acting_for("wall-a"), pytest.raises(TallystickError), transaction(pool) as connection:
        writes[1](connection)
    assert "wall-c" not in owners("ledger.account", "tenant_id")
    pool.close()
