"""The keys that a gateway uses, in memory; a thread looks every second whether one changed.

A tenant's own key comes first, then the installation's from the store, then what the settings
say. While the store is away the last known keys are used: no call is made then without a
hold, which needs the store too.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

import msgspec

from tallystick.errors import TallystickError
from tallystick.gateway.keys.store import ProviderKeys
from tallystick.gateway.model import UpstreamFailed
from tallystick.gateway.settings import Upstream

REFRESH_SECONDS = 1.0
_log = logging.getLogger(__name__)


class KeyRing:
    """Gives upstreams their keys."""

    def __init__(self, keys: ProviderKeys) -> None:
        self._keys = keys
        self._revision = -1
        self._found: Mapping[tuple[str, str], str] = {}
        self._keyed: dict[tuple[str, str], Upstream] = {}
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="provider-keys", daemon=True)

    def start(self) -> None:
        """Read the keys, then keep them fresh."""
        self.refresh()
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._is_closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def refresh(self) -> None:
        """Read the keys again if one changed; raises StoreUnavailable."""
        revision = self._keys.revision()
        if revision != self._revision:
            self._found = self._keys.open_all()  # at this revision or a later one
            self._keyed = {}
            self._revision = revision

    def keyed(self, upstream: Upstream, tenant_id: str) -> Upstream:
        """An upstream with the key that a tenant's calls use; raises UpstreamFailed."""
        found = self._found
        if not found:
            return upstream
        name = (tenant_id, upstream.name)
        if name not in found:
            name = ("", upstream.name)
        key = found.get(name)
        if key is None:
            return upstream
        if not key:
            raise UpstreamFailed(
                "the key that is kept for this upstream cannot be opened; set it again",
                code="upstream_key_unreadable",
                is_sent=False,
            )
        keyed = self._keyed.get(name)
        if keyed is None or keyed.api_key != key:
            keyed = self._keyed[name] = msgspec.structs.replace(upstream, api_key=key)
        return keyed

    def _run(self) -> None:
        while not self._is_closing.wait(REFRESH_SECONDS):
            try:
                self.refresh()
            except TallystickError as error:
                _log.warning("provider keys: %s", error.message)
            except Exception:  # the thread must live on
                _log.exception("provider keys could not be read")
