"""Alerts reach real receivers: once a step, signed, retried, and taken back at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tallystick.errors import Conflict, InvalidInput, NotFound
from tallystick.plumbing import outbound
from tests.alerts.receivers import (
    Mailbox,
    Receiver,
    free_port,
    http_receiver,
    smtp_receiver,
    status,
)
from tests.alerts.scene import SIGNAL, Scene


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with http_receiver() as running:
        yield running


@pytest.fixture
def scene(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[Scene]:
    made = Scene(postgres_url, request.node.name)
    yield made
    made.close()


def _payloads(receiver: Receiver) -> list[dict[str, Any]]:
    return [json.loads(one.body) for one in receiver.received]


def test_a_webhook_is_signed_and_says_everything(scene: Scene, receiver: Receiver) -> None:
    channel = scene.channel("webhook", receiver.url)
    scene.raise_signal()
    scene.settle()
    (came,) = receiver.received
    payload = Webhook(channel["secret"]).verify(came.body, came.headers)
    assert payload["type"] == "alert.opened"
    said = payload["data"]
    for name in ("who", "what", "how_much", "next_step", "how_to_stop"):
        assert said[name] == getattr(SIGNAL, name)
    assert said["link"] == f"https://usage.example.com/alerts/{scene.alert()['alert_id']}"
    (told,) = scene.deliveries()
    assert (told["status"], told["attempts"][0]["answer"]) == ("sent", 200)
    assert came.headers["webhook-id"] == told["delivery_id"]
    with pytest.raises(WebhookVerificationError):
        Webhook(channel["secret"]).verify(came.body + b" ", came.headers)


def test_repeats_are_said_once_and_the_end_once(scene: Scene, receiver: Receiver) -> None:
    scene.channel("webhook", receiver.url)
    for _ in range(3):
        scene.raise_signal()
        scene.settle()
    scene.clear()
    scene.settle()
    scene.clear()
    scene.later(60)
    assert [one["type"] for one in _payloads(receiver)] == ["alert.opened", "alert.recovered"]
    assert scene.alert()["times_seen"] == 3


def test_what_is_over_before_anyone_was_told_is_not_told(scene: Scene, receiver: Receiver) -> None:
    scene.channel("webhook", receiver.url)
    scene.raise_signal()
    scene.clear()
    scene.settle()
    assert receiver.received == []
    assert scene.alert()["status"] == "cleared"


def test_it_escalates_when_it_lasts_and_at_once_when_it_gets_worse(
    scene: Scene, receiver: Receiver
) -> None:
    first = scene.channel("webhook", receiver.url + "/first")["channel_id"]
    second = scene.channel("webhook", receiver.url + "/second")["channel_id"]
    third = scene.channel("webhook", receiver.url + "/third")["channel_id"]
    scene.route((0, first), (60, second), (90, third))
    scene.raise_signal()
    scene.settle()
    scene.later(59)
    assert [one.path for one in receiver.received] == ["/hook/first"]
    scene.later(1)
    assert [one.path for one in receiver.received][1:] == ["/hook/second"]
    scene.raise_signal(severity="critical")
    scene.settle()
    worse = {one.path for one in receiver.received[2:]}
    assert worse == {"/hook/first", "/hook/second", "/hook/third"}
    scene.clear()
    scene.settle()
    assert [one["reason"] for one in scene.deliveries()] == [
        *["opened", "lasting"], *["worse"] * 3, *["recovered"] * 3
    ]  # fmt: skip


def test_who_takes_care_stops_the_steps_until_it_gets_worse(
    scene: Scene, receiver: Receiver
) -> None:
    first = scene.channel("webhook", receiver.url + "/first")["channel_id"]
    second = scene.channel("webhook", receiver.url + "/second")["channel_id"]
    scene.route((0, first), (60, second))
    scene.raise_signal()
    scene.settle()
    alert_id = scene.alert()["alert_id"]
    scene.alerts.acknowledge(scene.tenant_id, alert_id, reason="on it", by="ann")
    again = scene.alerts.acknowledge(scene.tenant_id, alert_id, reason="me too", by="bob")
    assert (again["acknowledged_by"], len(again["actions"])) == ("ann", 1)
    scene.later(120)
    assert len(receiver.received) == 1
    scene.raise_signal(severity="critical")
    scene.settle()
    assert len(receiver.received) == 3
    assert scene.alert()["acknowledged_by"] == ""
    scene.clear()
    with pytest.raises(Conflict):
        scene.alerts.acknowledge(scene.tenant_id, alert_id, reason="", by="ann")


def test_a_mute_is_quiet_until_its_end(scene: Scene, receiver: Receiver) -> None:
    scene.channel("webhook", receiver.url)
    scene.raise_signal()
    alert_id = scene.alert()["alert_id"]
    muted = scene.alerts.mute(scene.tenant_id, alert_id, seconds=60, reason="load test", by="ann")
    assert (muted["muted_by"], muted["muted_because"]) == ("ann", "load test")
    scene.settle()
    scene.clear()
    scene.raise_signal()
    scene.later(59)
    assert receiver.received == []
    scene.later(1)
    assert [one["type"] for one in _payloads(receiver)] == ["alert.opened"]
    with pytest.raises(InvalidInput):
        scene.alerts.mute(scene.tenant_id, alert_id, seconds=60, reason="", by="ann")


def test_failures_are_tried_again_under_the_same_id(scene: Scene, receiver: Receiver) -> None:
    scene.channel("webhook", receiver.url)
    receiver.answers += [status(500), status(429, retry_after="40")]
    scene.raise_signal()
    scene.settle()
    scene.later(5)
    scene.later(39)
    assert len(receiver.received) == 2
    scene.clear()  # the end waits until the beginning was taken
    scene.settle()
    assert len(receiver.received) == 2
    scene.later(1)
    assert len({one.headers["webhook-id"] for one in receiver.received[:3]}) == 1
    assert [one["type"] for one in _payloads(receiver)][2:] == ["alert.opened", "alert.recovered"]
    tries = scene.deliveries()[0]["attempts"]
    assert [(one["status"], one["answer"]) for one in tries] == [
        ("retry", 500), ("retry", 429), ("sent", 200)
    ]  # fmt: skip


def test_tries_end_and_a_receiver_that_is_gone_is_switched_off(
    scene: Scene, receiver: Receiver
) -> None:
    channel = scene.channel("webhook", receiver.url)
    receiver.answers += [status(503) for _ in range(8)] + [status(410)]
    scene.raise_signal()
    for _ in range(10):
        scene.later(4000)
    assert [scene.deliveries()[0]["status"], len(receiver.received)] == ["failed", 8]
    scene.channels.test(scene.tenant_id, channel["channel_id"], "ann")
    scene.settle()
    found = scene.channels.get(scene.tenant_id, channel["channel_id"])
    assert (found["is_enabled"], "410" in found["disabled_because"]) == (False, True)
    assert found["deliveries"][0]["attempts"][0]["error"] == "HTTP 410"


def test_a_slow_receiver_does_not_hold_up_others(scene: Scene, receiver: Receiver) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            try:
                handler.wfile.write(b".")
                handler.wfile.flush()
            except OSError:
                return
            time.sleep(0.2)

    answer_in = time.monotonic()
    receiver.answers.append(drip)
    policy = outbound.OutboundPolicy(allow_private=True)
    with pytest.raises(outbound.Unreachable) as caught:
        outbound.post(receiver.url, b"{}", {}, policy, deadline_seconds=0.5)
    assert caught.value.code == "timeout"
    assert time.monotonic() - answer_in < 2


def test_a_rotated_secret_signs_together_with_the_old_one(scene: Scene, receiver: Receiver) -> None:
    channel = scene.channel("webhook", receiver.url)
    rotated = scene.channels.rotate(scene.tenant_id, channel["channel_id"], 100)
    scene.channels.test(scene.tenant_id, channel["channel_id"], "ann")
    scene.settle()
    (came,) = receiver.received
    for secret in (channel["secret"], rotated["secret"]):
        assert Webhook(secret).verify(came.body, came.headers)["type"] == "alert.test"
    scene.clock.micros += 101_000_000
    scene.channels.test(scene.tenant_id, channel["channel_id"], "ann")
    scene.settle()
    late = receiver.received[1]
    Webhook(rotated["secret"]).verify(late.body, late.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(channel["secret"]).verify(late.body, late.headers)


def test_slack_gets_blocks_that_no_name_can_break_out_of(scene: Scene, receiver: Receiver) -> None:
    scene.channel("slack", receiver.url)
    scene.raise_signal(who="team=<!channel> & <https://evil.example|ok>", what="x\n*bold*")
    scene.settle()
    (payload,) = _payloads(receiver)
    text = json.dumps(payload["blocks"][1:]) + payload["text"]
    assert "<!" not in text and "<https://evil" not in text
    assert "&lt;!channel&gt; &amp; " in text
    assert [block["type"] for block in payload["blocks"]] == ["header", "section", "context"]


@pytest.fixture
def mail(postgres_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[Scene, Mailbox]]:
    port = free_port()
    with smtp_receiver(port) as mailbox:
        made = Scene(postgres_url, request.node.name, f"smtp://127.0.0.1:{port}")
        yield made, mailbox
        made.close()


def test_mail_cannot_be_given_headers_or_markup(mail: tuple[Scene, Mailbox]) -> None:
    scene, mailbox = mail
    scene.channel("email", "oncall@example.com")
    scene.raise_signal(who="team=x\r\nBcc: thief@example.com", what="<script>alert(1)</script>")
    scene.settle()
    (sent,) = mailbox.mails
    assert mailbox.recipients == [["oncall@example.com"]]
    assert sent["Bcc"] is None
    assert sent["Subject"].startswith("[warning] team=x Bcc: thief@example.com:")
    html = sent.get_body(("html",))
    assert html is not None
    assert "<script>" not in html.get_content()
    assert "&lt;script&gt;" in html.get_content()
    plain = sent.get_body(("plain",))
    assert plain is not None
    assert "How much: 80.50 of 100 USD" in plain.get_content()


def test_a_mail_that_is_refused_for_now_is_tried_again_and_for_ever_is_not(
    mail: tuple[Scene, Mailbox],
) -> None:
    scene, mailbox = mail
    scene.channel("email", "oncall@example.com")
    mailbox.refusals += ["451 try later", "550 unknown"]
    scene.raise_signal()
    scene.settle()
    assert [one["status"] for one in scene.deliveries()] == ["pending"]
    scene.later(6)
    told = scene.deliveries()[0]
    assert [(one["answer"], one["status"]) for one in told["attempts"]] == [
        (451, "retry"),
        (550, "failed"),
    ]


def test_tenants_see_and_reach_only_their_own(scene: Scene, receiver: Receiver) -> None:
    channel = scene.channel("webhook", receiver.url)["channel_id"]
    scene.raise_signal(tenant_id="stranger")
    scene.settle()
    assert receiver.received == []
    scene.raise_signal()
    alert_id = scene.alert()["alert_id"]
    attempts: list[Callable[[], object]] = [
        lambda: scene.alerts.get("stranger", alert_id),
        lambda: scene.alerts.deliveries("stranger", alert_id),
        lambda: scene.alerts.mute("stranger", alert_id, seconds=9, reason="x", by="x"),
        lambda: scene.channels.get("stranger", channel),
        lambda: scene.channels.delete("stranger", channel),
        lambda: scene.channels.rotate("stranger", channel, 0),
        lambda: scene.channels.test("stranger", channel, "x"),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            attempt()
    assert scene.channels.list("stranger") == {"channels": []}


def test_secrets_and_targets_are_not_stored_or_shown_in_clear(
    scene: Scene, receiver: Receiver
) -> None:
    channel = scene.channel("slack", "http://127.0.0.1:9/services/T0/B0/canary-path")
    hook = scene.channel("webhook", receiver.url)
    scene.raise_signal()
    scene.settle()
    with scene.pool.connection() as connection:
        tables = ("alert_channel", "alert_delivery", "alert_attempt")
        stored = str([
            connection.execute(f"SELECT t::text FROM enforcement.{name} t".encode()).fetchall()
            for name in tables
        ])  # fmt: skip
    assert "canary-path" not in stored
    assert hook["secret"] not in stored
    assert "canary-path" not in json.dumps(scene.deliveries()) + json.dumps(channel)


def test_the_same_key_makes_one_channel(scene: Scene) -> None:
    def create(name: str) -> dict[str, Any]:
        target = "https://example.com/a"
        return scene.channels.create(
            scene.tenant_id, name=name, kind="webhook", target=target, key="k1", by="ann"
        )

    first, again = create("on-call"), create("on-call")
    assert first["channel_id"] == again["channel_id"]
    assert "secret" in first and "secret" not in again
    with pytest.raises(Conflict):
        create("other")
