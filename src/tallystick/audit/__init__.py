"""Audit: who did what, when, and what was decided; no content.

Owns the record of requests, denials and changes. Never changes a record once it is written:
the table refuses it, and the ledger's seals cover every record. Time: changes and denials
are durable before they are answered; reads and the busy routes within a tenth of a second.
"""

from tallystick.audit.model import Record
from tallystick.audit.service import SEALED, AuditTrail

__all__ = ["SEALED", "AuditTrail", "Record"]
