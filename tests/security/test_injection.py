"""Text that would be code elsewhere: in every parameter, path and field it stays text."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest

from tallystick.api.routes import ROUTES
from tests.acceptance.byte_search import ByteSearch
from tests.security.mail_server import TalkativeMailServer
from tests.security.scene import MAIL_PASSWORD, OTHER_PROVIDER_KEY, PROVIDER_KEY, Scene
from tests.server import event

pytestmark = pytest.mark.slow
_TEXTS = (
    "' OR '1'='1",
    "'; DROP TABLE ledger.account; --",
    "\\'; SELECT 1 /*",
    "{x:String} {tenant:Identifier}",
    "%(tenant_id)s %s {0} $1",
    "a\0b",
    "\ud7ff\u202e\U0001f600",
    "1) UNION ALL SELECT * FROM system.tables --",
    "..//../%2e%2e",
)
_READS = [entry for entry in ROUTES if entry.method == "GET" and "stream" not in entry.path]
_TAKEN = ("role", "roles", "tenant", "permissions", "scopes", "is_operator", "kind", "hash",
          "created_by", "changed_by", "granted", "captured", "held", "status_code")  # fmt: skip


@pytest.mark.parametrize("entry", _READS, ids=[entry.path for entry in _READS])
def test_no_text_is_taken_for_code(scene: Scene, entry: Any) -> None:
    key = scene.keys["globex", "admin"]
    name = entry.path.partition("{")[2].partition("}")[0]
    for text in _TEXTS:
        path = entry.path.replace("{" + name + "}", quote(text, safe="")) if name else entry.path
        asked = [scene.ask("GET", path, key)] if name else []
        asked += [
            scene.ask("GET", path.replace("{", "").replace("}", ""), key, params={parameter: text})
            for parameter in entry.query
        ]
        for answer in asked:
            assert answer.status_code < 500, (text, answer.text)
            assert "acme" not in answer.text
    assert scene.ask("GET", "/v1/accounts").json()["accounts"]


def test_fields_of_events_stay_text(scene: Scene) -> None:
    names = ("event_id", "run_id", "model", "feature", "user_id", "provider", "tool", "team")
    sent = [
        event(**{"event_id": f"code-{name}-{number}", "run_id": "code", name: text})
        for name in names
        for number, text in enumerate(_TEXTS)
    ]
    answer = scene.ask("POST", "/v1/events", scene.keys["acme", "service"], json=sent)
    assert answer.status_code == 200, answer.text
    receipt = answer.json()
    assert receipt["accepted"] + len(receipt["rejected"]) == len(sent)
    scene.server.wait_until_settled()
    key = scene.keys["acme", "viewer"]
    for text in _TEXTS:
        for name in ("model", "team", "feature"):
            query = {name: text, "group_by": name}
            rows = scene.ask("GET", "/v1/stats", key, params=query)
            assert rows.status_code in (200, 400), rows.text


def test_no_body_takes_a_role_or_tenant_by_the_way(scene: Scene) -> None:
    """Fields that no body names: refused or not taken, whoever's key asks."""
    key = scene.keys["acme", "service"]
    before = scene.ask("GET", "/v1/whoami", key).json()
    had = scene.server.get("/v1/accounts/acme/balance")
    for entry in ROUTES:
        if entry.method == "GET" or not isinstance(entry.body_example, dict):
            continue
        path = entry.path.replace(":path", "").replace("{", "").replace("}", "")
        forged = dict.fromkeys(_TAKEN, "admin") | {"tenant_id": "acme", "roles": ["admin"]}
        answer = scene.ask(
            entry.method, path, scene.keys["globex", "admin"], json={**entry.body_example, **forged}
        )
        assert answer.status_code < 500, (path, answer.text)
        assert answer.status_code >= 400 or "acme" not in answer.text, (path, answer.text)
        assert '"tenant_id":"acme"' not in answer.text
    assert scene.ask("GET", "/v1/whoami", key).json() == before
    assert scene.server.get("/v1/accounts/acme/balance") == had
    given = {"name": "n", "tenant_id": "acme"}
    for name in ("permissions", "is_operator", "prefix", "hash", "created_by", "kind"):
        made = scene.ask("POST", "/v1/api-keys", json={**given, name: "x"})
        assert (made.status_code, made.json()["code"]) == (400, "bad_body"), name


def test_a_known_prefix_and_an_unknown_one_answer_alike(scene: Scene) -> None:
    good = scene.keys["acme", "admin"]
    known = good.rpartition("_")[0] + "_" + "0" * 64
    unknown = "ts_zzzzzzzz_" + "0" * 64
    answers = [scene.ask("GET", "/v1/whoami", key) for key in (known, unknown)]
    assert answers[0].json() == answers[1].json()
    names = [sorted(answer.headers) for answer in answers]
    assert names[0] == names[1]


def _fail_a_mail(scene: Scene, mail_server: TalkativeMailServer) -> None:
    """Have a mail refused in words that hold the password, and the refusal recorded."""
    channel = {"tenant_id": "acme", "name": "m", "kind": "email", "target": "ops@acme.example"}
    made = scene.ask("POST", "/v1/alert-channels", json=channel).json()
    path = f"/v1/alert-channels/{made['channel_id']}"
    assert scene.ask("POST", f"{path}/test").status_code == 202
    deadline = time.monotonic() + 30
    while not scene.ask("GET", path).json()["deliveries"][0]["attempts"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert set(mail_server.passwords) == {MAIL_PASSWORD.encode()}


def test_no_secret_is_in_any_stored_byte(scene: Scene, mail_server: TalkativeMailServer) -> None:
    """After all that was tried: keys, client and webhook secrets, those of providers and mail."""
    _fail_a_mail(scene, mail_server)
    call = {"model": "gpt-4o", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    for path in ("/openai/v1/chat/completions", "/anthropic/v1/messages"):
        answer = scene.ask("POST", path, scene.keys["acme", "service"], json=call)
        assert PROVIDER_KEY not in answer.text + str(answer.headers)
    for secret in scene.secrets.values():  # misused: as a path, a field, a query and a form
        scene.ask("GET", "/v1/whoami", f"Bearer {secret}")
        scene.nobody.post("/login", data={"key": secret + "x"})
        form = {"grant_type": "client_credentials", "client_id": "x", "client_secret": secret}
        scene.nobody.post("/oauth/token", data=form)
    scene.server.wait_until_settled()
    wanted = {secret.encode() for secret in scene.secrets.values()}
    given = (PROVIDER_KEY, OTHER_PROVIDER_KEY, MAIL_PASSWORD, scene.operator)
    wanted |= {secret.encode() for secret in given}
    search = ByteSearch(wanted)
    for file in scene.server.folder.rglob("*"):
        if file.is_file() and file.name != "admin.key":
            assert not list(search.find(file.read_bytes())), file
    keys = list(scene.server.folder.glob("*.key"))
    assert keys and all(key.stat().st_mode & 0o077 == 0 for key in keys)
