"""Plumbing: the stores, reached the same way whether embedded or distant.

Owns connections, migrations, the usage log and the embedded servers. Never decides
anything about events, prices or credits. Keeps everything of an embedded store in one
data folder.
"""
