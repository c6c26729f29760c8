"""Reading from a URL that somebody gave: never from inside our own network.

The host's addresses are resolved here and checked, and the request goes to the address that
was checked: a name that resolves to another one a moment later changes nothing. No redirect
is followed, no proxy of the environment is asked, and the answer has a bound.
"""

from __future__ import annotations

import socket
import time
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from tallystick.errors import InvalidInput, StoreUnavailable

_TIMEOUT = httpx.Timeout(3.0)
_SECONDS_MAX = 5.0


class Outbound:
    """Fetches public documents; `allows_private` (tests) lets http and loopback pass too."""

    def __init__(self, *, allows_private: bool = False) -> None:
        self.allows_private = allows_private

    def fetch(self, url: str, *, bytes_max: int) -> bytes:
        """Fetch a document; InvalidInput when it may not be asked, else StoreUnavailable."""
        parts = urlsplit(url)
        host, is_secure = parts.hostname or "", parts.scheme == "https"
        if not host or parts.username or not (is_secure or self.allows_private):
            raise InvalidInput("the URL must be https:// and a host", code="bad_url")
        port = parts.port or (443 if is_secure else 80)
        address = self.resolve(host, port)
        shown = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{shown}:{port}", fragment="").geturl()
        headers = {"Host": parts.netloc, "Accept": "application/json"}
        try:
            with (
                httpx.Client(timeout=_TIMEOUT, trust_env=False) as client,
                client.stream(
                    "GET", target, headers=headers, extensions={"sni_hostname": host}
                ) as answer,
            ):
                if answer.status_code != 200:
                    raise StoreUnavailable(f"{host} answered {answer.status_code}")
                return _read(answer, bytes_max)
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"{host} does not answer") from error

    def resolve(self, host: str, port: int) -> str:
        """An address of a host; InvalidInput when one of them is not public."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise StoreUnavailable(f"{host} has no address") from error
        addresses = [str(one[4][0]) for one in found]
        if not self.allows_private and not all(is_public(address) for address in addresses):
            raise InvalidInput("the host is not on the public internet", code="private_address")
        return addresses[0]


def is_public(text: str) -> bool:
    """Tell whether an address is one of the public internet.

    >>> [is_public(one) for one in ("8.8.8.8", "127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1")]
    [True, False, False, False]
    """
    address = ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped if mapped is not None else address
    return address.is_global and not address.is_multicast


def _read(answer: httpx.Response, bytes_max: int) -> bytes:
    body, ends_at = b"", time.monotonic() + _SECONDS_MAX
    for piece in answer.iter_bytes():
        body += piece
        if len(body) > bytes_max:
            raise StoreUnavailable("the answer is too large")
        if time.monotonic() > ends_at:
            raise StoreUnavailable("the answer is too slow")
    return body
