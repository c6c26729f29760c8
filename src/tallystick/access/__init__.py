"""Access: who asks, and what they may.

Owns keys, tokens, roles and sessions. Never decides about money. Keeps keyed hashes, never a
key. Time: expiry is checked at every request.
"""

from tallystick.access.model import OPERATOR, Principal

__all__ = ["OPERATOR", "Principal"]
