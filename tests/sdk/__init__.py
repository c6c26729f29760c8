"""The SDK: marks of work, the spool, metered clients, on real servers and real files."""
