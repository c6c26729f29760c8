"""Requests to addresses that tenants choose: guarded, bounded, never redirected.

A name is resolved once, every address it has is checked, and the connection goes to a checked
address, so a name that changes between check and use gains nothing. TLS still verifies the
name. The whole exchange has one deadline and the answer a size limit; no proxy, no cookies, no
redirects. `allow_private` is for tests and for receivers inside one's own network.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpcore

from tallystick.errors import InvalidInput, TallystickError

DEADLINE_SECONDS = 8.0
ANSWER_BYTES_MAX = 64 * 1024
_EMBEDS_IPV4 = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")
)
_LONGEST_URL = 2048


class Unreachable(TallystickError):
    """No answer: refused address, no connection, time over, or an answer too large."""

    code = "unreachable"
    retryable = True


class Answer(NamedTuple):
    """What came back; the body is only for errors and is bounded."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name, as this machine is told."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable("the name has no address", code="name_unknown") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class OutboundPolicy(NamedTuple):
    """Where requests may go."""

    allow_private: bool = False
    """Loopback, private and link-local addresses, and http."""
    resolve: Callable[[str, int], list[str]] = resolve_name


def check_url(url: str, policy: OutboundPolicy, field: str = "url") -> None:
    """Raise InvalidInput for a URL that would never be called; resolves nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput("this is not a URL", code="bad_url", field=field) from error
    is_plain = len(url) <= _LONGEST_URL and url.isascii() and url.isprintable() and " " not in url
    schemes = ("https", "http") if policy.allow_private else ("https",)
    if not is_plain or parts.scheme not in schemes or not parts.hostname or port == 0:
        raise InvalidInput(
            f"give a URL of {' or '.join(schemes)} with a host", code="bad_url", field=field
        )
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("a URL may not carry a user", code="bad_url", field=field)
    with contextlib.suppress(ValueError):
        if not is_allowed(parts.hostname, policy):
            raise InvalidInput("this address may not be called", code="bad_url", field=field)


def is_allowed(address: str, policy: OutboundPolicy) -> bool:
    """Tell whether an address may be connected to; ValueError when it is none.

    >>> is_allowed("169.254.169.254", OutboundPolicy()), is_allowed("8.8.8.8", OutboundPolicy())
    (False, True)
    """
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if policy.allow_private:
        return not found.is_multicast and not found.is_unspecified
    is_hidden = any(found.version == net.version and found in net for net in _EMBEDS_IPV4)
    return found.is_global and not found.is_multicast and not is_hidden


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    policy: OutboundPolicy,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> Answer:
    """Send one POST; raises InvalidInput or Unreachable, whose text holds nothing of the URL."""
    return _send("POST", url, headers, body, policy, deadline_seconds, ANSWER_BYTES_MAX)


def fetch(url: str, policy: OutboundPolicy, *, bytes_max: int) -> bytes:
    """Read a document; raises InvalidInput or Unreachable."""
    headers = {"Accept": "application/json"}
    answer = _send("GET", url, headers, b"", policy, DEADLINE_SECONDS, bytes_max)
    if answer.status != 200:
        raise Unreachable(f"the answer was {answer.status}")
    return answer.body


def _send(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    policy: OutboundPolicy,
    deadline_seconds: float,
    bytes_max: int,
) -> Answer:
    check_url(url, policy)
    until = time.monotonic() + deadline_seconds
    backend = _GuardedBackend(policy, until)
    try:
        with (
            httpcore.ConnectionPool(network_backend=backend, max_connections=1, retries=0) as pool,
            pool.stream(method, url, headers=list(headers.items()), content=body) as response,
        ):
            text = _read_bounded(response.iter_stream(), bytes_max)
            found = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in response.headers
            }
            return Answer(response.status, found, text)
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise Unreachable("no answer in time", code="timeout") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise Unreachable("the connection failed", code="connection_failed") from error


def _read_bounded(pieces: Iterable[bytes], bytes_max: int) -> bytes:
    body = b""
    for piece in pieces:
        body += piece
        if len(body) > bytes_max:
            raise Unreachable("the answer is too large", code="answer_too_large")
    return body


class _GuardedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses only, until a deadline."""

    def __init__(self, policy: OutboundPolicy, until: float) -> None:
        self._policy = policy
        self._until = until
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve, check all, and connect to the first that answers."""
        addresses = self._checked(host, port)
        for address in addresses[:-1]:
            with contextlib.suppress(httpcore.ConnectError):
                return self._connect(address, port)
        return self._connect(addresses[-1], port)

    def _checked(self, host: str, port: int) -> list[str]:
        addresses = self._policy.resolve(host, port)
        if not addresses or not all(is_allowed(one, self._policy) for one in addresses):
            raise Unreachable("the name leads to a private address", code="address_refused")
        return addresses

    def _connect(self, address: str, port: int) -> httpcore.NetworkStream:
        stream = self._backend.connect_tcp(address, port, timeout=_left(self._until))
        return _BoundedStream(stream, self._until)


class _BoundedStream(httpcore.NetworkStream):
    """Lets every read and write end at the deadline of the whole exchange."""

    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what there is."""
        return self._stream.read(max_bytes, _left(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all."""
        self._stream.write(buffer, _left(self._until))

    def close(self) -> None:
        """Close."""
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """Begin TLS; the certificate must be the name's."""
        stream = self._stream.start_tls(ssl_context, server_hostname, _left(self._until))
        return _BoundedStream(stream, self._until)

    def get_extra_info(self, info: str) -> Any:
        """What the stream below knows."""
        return self._stream.get_extra_info(info)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.TimeoutException("the deadline is over")
    return left
