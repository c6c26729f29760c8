"""Alerts over HTTP and on the pages of a real server, delivered by its own lane."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from standardwebhooks.webhooks import Webhook

from tallystick.enforcement.alerts import AlertStore
from tallystick.plumbing.embedded.postgres import EmbeddedPostgres
from tests.alerts.receivers import http_receiver
from tests.alerts.scene import SIGNAL
from tests.conftest import make_database
from tests.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(postgres: EmbeddedPostgres) -> str:
    return make_database(postgres, "alerts_http")


@pytest.fixture(scope="module")
def server(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"TALLYSTICK_POSTGRES_URL": url, "TALLYSTICK_ALLOW_PRIVATE_ADDRESSES": "true"}
    os.environ.update(settings)
    running = Server(tmp_path_factory.mktemp("alerts") / "data").start()
    for name in settings:
        del os.environ[name]
    yield running
    running.stop()


def _raise(url: str, **changes: Any) -> None:
    with psycopg.connect(url) as connection:
        AlertStore().raise_signal(connection, msgspec.structs.replace(SIGNAL, **changes))


def test_a_channel_is_made_tested_told_and_the_log_shows_it(server: Server, url: str) -> None:
    with http_receiver() as receiver:
        body = {"tenant_id": "acme", "name": "hook", "kind": "webhook", "target": receiver.url}
        channel = server.client.post("/v1/alert-channels", json=body).json()
        path = f"/v1/alert-channels/{channel['channel_id']}"
        assert server.client.post(f"{path}/test").status_code == 202
        (came,) = receiver.wait_for(1)
        assert Webhook(channel["secret"]).verify(came.body, came.headers)["type"] == "alert.test"
        steps = [{"after_seconds": 0, "channels": [channel["channel_id"]]}]
        route = server.client.put(
            "/v1/alert-routes/all", json={"tenant_id": "acme", "steps": steps}
        )
        assert route.json()["steps"] == steps
        _raise(url)
        receiver.wait_for(2)
        (alert,) = server.get("/v1/alerts", tenant_id="acme", status="open", kind="budget")[
            "alerts"
        ]
        deadline = time.monotonic() + 20
        told: dict[str, Any] = {"status": "pending"}
        while told["status"] != "sent" and time.monotonic() < deadline:
            (told,) = server.get(f"/v1/alerts/{alert['alert_id']}/deliveries")["deliveries"]
            time.sleep(0.05)
        assert [one["answer"] for one in told["attempts"]] == [200]
        assert channel["secret"] not in server.client.get(path).text
        assert server.client.delete("/v1/alert-routes/all?tenant_id=acme").status_code == 200
        assert server.client.delete(path).status_code == 200
        assert server.client.get(path).status_code == 404


def test_someone_takes_care_on_the_page(server: Server, url: str) -> None:
    _raise(url, tenant_id="pages", who="team=<b>x</b>")
    (alert,) = server.get("/v1/alerts", tenant_id="pages")["alerts"]
    key = (server.folder / "admin.key").read_text().strip()
    with httpx.Client(base_url=server.client.base_url) as browser:
        assert browser.get("/alerts").status_code == 303
        browser.post("/login", data={"key": key})
        listed = browser.get("/alerts", params={"tenant_id": "pages"}).text
        assert "team=&lt;b&gt;x&lt;/b&gt;" in listed
        page = browser.get(alert["link"])
        found = re.search(r'name="form_token" value="(\w+)"', page.text)
        assert found is not None
        form = {"action": "acknowledge", "reason": "on it"}
        assert browser.post(alert["link"], data=form).status_code == 403
        assert server.get(f"/v1/alerts/{alert['alert_id']}")["acknowledged_by"] == ""
        form["form_token"] = found[1]
        assert browser.post(alert["link"], data=form).status_code == 303
        assert server.get(f"/v1/alerts/{alert['alert_id']}")["acknowledged_by"] == "admin"
        refused = browser.post(alert["link"], data={**form, "action": "mute", "hours": "x"})
        assert refused.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/alerts?severity=bad", None, 400),
        ("GET", "/v1/alerts?cursor=bad", None, 400),
        ("GET", "/v1/alerts/unknown", None, 404),
        ("POST", "/v1/alerts/unknown/acknowledge", {}, 404),
        ("POST", "/v1/alert-channels", {"name": "x", "kind": "fax", "target": "1"}, 400),
        ("POST", "/v1/alert-channels/unknown/test", {}, 404),
        ("PUT", "/v1/alert-routes/x", {"tenant_id": "acme", "steps": []}, 400),
    ],
)
def test_what_does_not_fit_is_a_problem(
    server: Server, method: str, path: str, body: Any, status: int
) -> None:
    answer = server.client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
