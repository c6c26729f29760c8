"""The local spool: what is owed to the server, kept until it has it.

Owns records between the application and the server, in memory or in segment files on disk.
Never drops one silently: a full spool refuses (or makes the caller wait), a refused record is
counted and kept aside. Keeps its files under the folder it is given, one subfolder for each
process. Time: none; a record carries its own. Records may be delivered more than once after
a crash; their event ids and idempotency keys were fixed when they were written, so the effect
is exactly once.
"""

from tallystick.sdk.spool.files import FileSpool, Leftover, adopt_leftovers
from tallystick.sdk.spool.memory import MemorySpool, Spool

__all__ = ["FileSpool", "Leftover", "MemorySpool", "Spool", "adopt_leftovers"]
