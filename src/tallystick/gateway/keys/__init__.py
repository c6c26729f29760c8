"""Keys of providers that are kept sealed in PostgreSQL: the installation's, and tenants' own.

Owns their rows, and what a gateway keeps of them in memory. Never answers or logs a key: it is
told once, sealed, and opened only to be sent to its upstream. Keeps one key for each tenant
and upstream. Time: a change is in use within REFRESH_SECONDS in every process.
"""

from tallystick.gateway.keys.ring import KeyRing
from tallystick.gateway.keys.store import KeyView, ProviderKeys

__all__ = ["KeyRing", "KeyView", "ProviderKeys"]
