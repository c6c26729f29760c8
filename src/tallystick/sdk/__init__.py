"""What an application imports.

Owns the client of leases: credit lent to a worker that authorizes in memory. Never decides
what the server would decide otherwise. Keeps nothing on disk. Imports the kernel only.
"""

from tallystick.sdk.leases import HttpLeases, LeasedCredit, Leases, LeaseTerms, Permit

__all__ = ["HttpLeases", "LeaseTerms", "LeasedCredit", "Leases", "Permit"]
