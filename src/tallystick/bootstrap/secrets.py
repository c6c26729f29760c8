"""Secrets of the data folder: made once, readable by their owner alone."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from tallystick.errors import InvalidInput
from tallystick.settings import Settings

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def load_admin_key(settings: Settings, folder: Path) -> str:
    """Return the admin key that was set, or the folder's own (made on loopback only)."""
    if settings.admin_key:
        return settings.admin_key
    path = folder / "admin.key"
    if not path.exists() and settings.host not in _LOOPBACK:
        raise InvalidInput(
            "TALLYSTICK_ADMIN_KEY must be set to listen beyond this machine",
            code="admin_key_missing",
        )
    return owner_only_secret(path)


def load_access_key(settings: Settings, folder: Path) -> str:
    """The access secret: set, made from another shared secret, or the folder's own."""
    if settings.access_key:
        return settings.access_key
    if settings.redaction_key:
        return hmac.new(settings.redaction_key.encode(), b"access", "sha256").hexdigest()
    return owner_only_secret(folder / "access.key")


def owner_only_secret(path: Path) -> str:
    """Return the secret of a file, made now if there is none."""
    if not path.exists():
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write("ts_" + secrets.token_urlsafe(32) + "\n")
    return path.read_text("ascii").strip()
