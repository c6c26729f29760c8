"""Short secrets sealed before they are stored (AES-256-GCM); the database never has the key.

What was sealed for one use and name opens for no other: a sealed value that is copied to
another row stays shut. The stored form is a nonce of 12 bytes, then the ciphertext with its tag.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.errors import TallystickError

_NONCE_BYTES = 12


class SealBroken(TallystickError):
    """It was sealed with another secret than this process has, or for another name."""

    code = "sealed_with_another_key"


class Sealing:
    """Seals and opens with a key that is made of `secret` for one `use`.

    `setting` is where the secret comes from, for the message when it is another one.
    """

    def __init__(
        self,
        secret: bytes,
        use: bytes,
        *,
        setting: str,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._cipher = AESGCM(hmac.digest(secret, use, "sha256"))
        self._setting = setting
        self._random_bytes = random_bytes

    def seal(self, plain: bytes, name: str) -> bytes:
        """Return what may be stored; it opens only under the same name."""
        nonce = self._random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Return what was sealed; SealBroken."""
        nonce, rest = bytes(sealed[:_NONCE_BYTES]), bytes(sealed[_NONCE_BYTES:])
        try:
            return self._cipher.decrypt(nonce, rest, name.encode())
        except (InvalidTag, ValueError) as error:  # a ValueError when it is too short
            raise SealBroken(
                f"it was sealed with another {self._setting} than this process has"
            ) from error
