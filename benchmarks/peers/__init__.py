"""Peers against the same upstream, load and machine; each in an environment of its own."""
