"""A tenant's webhook reaches no private address, by no trick of names, numbers or redirects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tallystick.errors import InvalidInput
from tallystick.plumbing.outbound import (
    OutboundPolicy,
    Unreachable,
    check_url,
    is_allowed,
    post,
)
from tests.alerts.receivers import Receiver, http_receiver, status

STRICT = OutboundPolicy()
OPEN = OutboundPolicy(allow_private=True)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with http_receiver() as running:
        yield running


@pytest.mark.parametrize(
    "address",
    [
        *["127.0.0.1", "10.0.0.8", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"],
        *["0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00::1"],
        *["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1"],
        "fe80::1%eth0",
    ],
)
def test_private_addresses_are_refused_in_every_writing(address: str) -> None:
    assert not is_allowed(address, STRICT)


@pytest.mark.parametrize(
    "url",
    [
        *["http://example.com/", "ftp://example.com/", "https:///x", "https://", "example.com"],
        *[
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/x",
            "https://h:99999/",
        ],
        *["https://user:secret@example.com/", "https://example.com/a b", "https://example.com/\n"],
        "https://example.com/" + "x" * 2100,
    ],
)
def test_urls_that_may_not_be_called_are_refused_when_given(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_url(url, STRICT)


@pytest.mark.parametrize(
    "host", ["localhost", "127.1", "2130706433", "0x7f000001", "017700000001", "0"]
)
def test_names_and_numbers_that_mean_loopback_are_refused_when_connecting(host: str) -> None:
    with pytest.raises(Unreachable) as caught:
        post(f"https://{host}/", b"{}", {}, STRICT)
    assert caught.value.code == "address_refused"


def test_one_private_address_among_public_ones_is_refused() -> None:
    policy = OutboundPolicy(resolve=lambda *_: ["93.184.215.14", "127.0.0.1"])
    with pytest.raises(Unreachable) as caught:
        post("https://rebinding.test/", b"{}", {}, policy)
    assert caught.value.code == "address_refused"


def test_a_name_is_resolved_once_and_the_checked_address_is_connected(receiver: Receiver) -> None:
    asked: list[str] = []

    def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    policy = OutboundPolicy(allow_private=True, resolve=resolve)
    answer = post(f"http://receiver.test:{receiver.port}/hook", b"{}", {}, policy)
    assert (answer.status, asked) == (200, ["receiver.test"])
    assert receiver.received[0].headers["host"] == f"receiver.test:{receiver.port}"


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answers.append(status(302, location=receiver.url + "/elsewhere"))
    assert post(receiver.url, b"{}", {}, OPEN).status == 302
    assert len(receiver.received) == 1


def test_an_answer_without_end_is_cut_off(receiver: Receiver) -> None:
    def flood(handler: object) -> None:
        handler.send_response(200)  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        try:
            for _ in range(200):
                handler.wfile.write(b"x" * 4096)  # type: ignore[attr-defined]
        except OSError:
            return

    receiver.answers.append(flood)
    with pytest.raises(Unreachable) as caught:
        post(receiver.url, b"{}", {}, OPEN)
    assert caught.value.code == "answer_too_large"


def test_nobody_listening_is_said_without_the_url() -> None:
    with pytest.raises(Unreachable) as caught:
        post("http://127.0.0.1:1/secret-path", b"{}", {}, OPEN)
    assert "secret-path" not in str(caught.value)
    assert caught.value.code == "connection_failed"
