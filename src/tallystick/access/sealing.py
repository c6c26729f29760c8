"""The access secret: hashes keys, seals private keys, signs sessions.

One secret of the data folder (or the setting TALLYSTICK_ACCESS_KEY, the same for all processes)
gives a key of its own to each use. Who has the database without it can neither try keys nor
sign tokens.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tallystick.errors import InvalidInput

_NONCE_BYTES = 12
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class Sealer:
    """Everything that needs the access secret; `random` gives unguessable bytes."""

    def __init__(self, secret: str, *, random: Callable[[int], bytes] = os.urandom) -> None:
        def derived(use: bytes) -> bytes:
            return hmac.digest(secret.encode(), b"tallystick:" + use, "sha256")

        self._key_hash = derived(b"key hash")
        self._session = derived(b"session")
        self._cipher = AESGCM(derived(b"private keys"))
        self.random = random

    def new_prefix(self) -> str:
        """Eight characters that name a key; no secret."""
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in self.random(8))

    def new_secret(self) -> str:
        """256 bits that nobody can guess, as text."""
        return self.random(32).hex()

    def hash_of(self, text: str) -> bytes:
        """The keyed hash under which a key is stored and found."""
        return hmac.digest(self._key_hash, text.encode("utf-8", "surrogatepass"), "sha256")

    def seal(self, plain: bytes, name: str) -> bytes:
        """Encrypt; the result opens only under the same name."""
        nonce = self.random(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Decrypt; InvalidInput when another secret sealed it."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except InvalidTag as error:
            raise InvalidInput(
                "TALLYSTICK_ACCESS_KEY is not the one that this database was used with",
                code="wrong_access_key",
            ) from error

    def signature(self, *parts: bytes) -> str:
        """Sign what a session's cookie or a form says."""
        message = b"".join(b"%d:%s" % (len(part), part) for part in parts)
        return hmac.new(self._session, message, hashlib.sha256).hexdigest()
