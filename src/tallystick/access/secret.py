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

from tallystick.plumbing.sealing import Sealing

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class AccessSecret:
    """Everything that needs the access secret; `random` gives unguessable bytes."""

    def __init__(self, secret: str, *, random: Callable[[int], bytes] = os.urandom) -> None:
        def derived(use: bytes) -> bytes:
            return hmac.digest(secret.encode(), b"tallystick:" + use, "sha256")

        self._key_hash = derived(b"key hash")
        self._session = derived(b"session")
        self.private_keys = Sealing(
            secret.encode(),
            b"tallystick:private keys",
            setting="TALLYSTICK_ACCESS_KEY",
            random_bytes=random,
        )
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

    def signature(self, *parts: bytes) -> str:
        """Sign what a session's cookie or a form says."""
        message = b"".join(b"%d:%s" % (len(part), part) for part in parts)
        return hmac.new(self._session, message, hashlib.sha256).hexdigest()
