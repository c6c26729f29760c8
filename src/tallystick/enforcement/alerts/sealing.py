"""Secrets of channels, sealed with a key that the database does not know (AES-256-GCM).

A webhook's URL may be a credential (Slack's is), so targets are sealed as well as signing
secrets. What was sealed for one channel and purpose opens for no other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.errors import TallystickError

_NONCE_BYTES = 12


class SealBroken(TallystickError):
    """A channel was sealed with another key than this process has."""

    code = "sealed_with_another_key"


class Sealing:
    """Seals and opens short texts; `key` is the installation's secret."""

    def __init__(
        self, key: bytes, random_bytes: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self._cipher = AESGCM(hmac.new(key, b"alert channels", hashlib.sha256).digest())
        self._random_bytes = random_bytes

    def seal(self, text: str, purpose: str) -> bytes:
        """Return what may be stored."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> str:
        """Return the text; SealBroken when the key is another one."""
        nonce, rest = bytes(sealed[:_NONCE_BYTES]), bytes(sealed[_NONCE_BYTES:])
        try:
            return self._cipher.decrypt(nonce, rest, purpose.encode()).decode()
        except InvalidTag as error:
            raise SealBroken(
                "the channel was sealed with another TALLYSTICK_REDACTION_KEY; make it again"
            ) from error

    def new_secret(self) -> str:
        """A signing secret as Standard Webhooks writes it."""
        return "whsec_" + base64.b64encode(self._random_bytes(24)).decode()
